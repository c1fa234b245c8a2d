"""A process and all that it has started, as the process group that it leads: told, waited for and ended as one.

A leader such as a shell may die of a signal and leave the program behind that should have heard it. This process adopts what is left.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

POLL_SECONDS = 0.05
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
"""https://man7.org/linux/man-pages/man2/prctl.2.html"""


@dataclass(frozen=True)
class Group:
    leader: "subprocess.Popen[bytes]"
    codes: list[int] = field(default_factory=list)
    """Exit codes of those that have outlived their leader, as Popen gives them."""

    @staticmethod
    def start(argv: Sequence[str], environment: Mapping[str, str]) -> "Group":
        """Raises OSError when `argv` cannot be started."""
        # a process group of its own, or Ctrl-C at a terminal would reach it twice
        return Group(subprocess.Popen(argv, env=environment, process_group=0, preexec_fn=dies_with(os.getpid())))

    def tell(self, number: signal.Signals) -> None:
        """SIGTERM goes to the leader, or to those that it has left behind, and not to all: one who is told tells his own children, and a
        loader's worker that dies of it is an error to the program which is about to save. SIGINT goes to all, as from a terminal."""
        if number != signal.SIGTERM:
            with suppress(ProcessLookupError):
                os.killpg(self.leader.pid, number)
        elif self.leader.poll() is None:
            self.leader.send_signal(number)
        else:
            self._tell_orphans(number)

    def _tell_orphans(self, number: signal.Signals) -> None:
        for orphan in _orphans(self.leader.pid):
            with suppress(ProcessLookupError):
                os.kill(orphan, number)

    def outlived(self, seconds: float | None) -> None:
        """Waits until nothing is left of a group whose leader has ended; what is left after `seconds` is ended by SIGKILL."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while self.is_left():
            if deadline is not None and time.monotonic() > deadline:
                self.tell(signal.SIGKILL)
            time.sleep(POLL_SECONDS)

    def is_left(self) -> bool:
        """Whether anything of it lives, once its leader has ended."""
        with suppress(ChildProcessError):  # none is ours
            while (found := os.waitpid(-self.leader.pid, os.WNOHANG))[0]:
                self.codes.append(os.waitstatus_to_exitcode(found[1]))
        try:
            os.killpg(self.leader.pid, 0)
        except ProcessLookupError:
            return False
        return True


@contextmanager
def adopting() -> Iterator[None]:
    """Within the block, what loses its parent among this process's descendants becomes its child, on Linux."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    try:
        yield
    finally:
        _prctl(PR_SET_CHILD_SUBREAPER, 0)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value)


def _orphans(group: int) -> list[int]:
    """Of this group, those whose parent this process has become; where the system does not say, all of them."""
    if sys.platform != "linux":
        return [-group]
    return [pid for pid, parent, of in _processes() if of == group and parent == os.getpid()]


def _processes() -> Iterator[tuple[int, int, int]]:
    """Of each process its id, its parent's and its group's (https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html)."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended
            parent, group = path.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[1:3]
            yield int(path.parent.name), int(parent), int(group)


def dies_with(parent: int) -> Callable[[], None] | None:
    """What a new process does first, so that the kernel ends it when its parent dies; None where there is no such thing."""
    if sys.platform != "linux":
        return None
    libc: Any = ctypes.CDLL(None)  # loaded before the fork, after which hardly anything is safe

    def ask() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before we asked
            os._exit(128 + signal.SIGKILL)

    return ask
