"""Starts server processes for tests and waits until they answer."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_until(what: str, ready: Callable[[], bool], seconds: float = 60.0, process: "subprocess.Popen[bytes] | None" = None) -> None:
    """Returns once `ready()`; fails with what was waited for when the time is over or the process died."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if ready():
            return
        if process is not None and process.poll() is not None:
            raise AssertionError(f"{what}: the process ended with {process.returncode}")
        time.sleep(0.1)
    raise AssertionError(f"{what}: not within {seconds:.0f} s")


@contextlib.contextmanager
def running(command: Sequence[str | Path], log: Path, env: Mapping[str, str] | None = None) -> Iterator["subprocess.Popen[bytes]"]:
    """A process in a group of its own, ended with all its children afterwards. Its output goes to `log`."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            [str(part) for part in command], stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True,
            env={**os.environ, **(env or {})},
        )
    try:
        yield process
    finally:
        end_group(process)


def end_group(process: "subprocess.Popen[bytes]", patience: float = 10.0) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(patience)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
