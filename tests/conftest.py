"""What every suite shares."""

import os
from pathlib import Path

SUPPORT = str(Path(__file__).parent / "support")


def pytest_configure() -> None:
    """pytest finds the tests' support by itself; the processes that tests start find it so."""
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if SUPPORT not in paths:
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [SUPPORT, *paths]))
