"""What every suite shares."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

SUPPORT = str(Path(__file__).parent / "support")


def pytest_configure() -> None:
    """pytest finds the tests' support by itself; the processes that tests start find it so."""
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if SUPPORT not in paths:
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [SUPPORT, *paths]))


@pytest.fixture(autouse=True)
def _signals_as_they_were() -> Iterator[None]:
    """A stage that a test runs in its own process keeps its handlers when its end is decided: no process outlives that."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
