"""How a training ends: every way to end becomes one exit code, one line for people and one report.

This module imports no torch, so that SIGTERM has a handler before the slow imports: without one, a container's first
process ignores the signal until the kubelet kills it.
"""

import atexit
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn

from dropout_api.names import ExitCode, Stage, Torchrun
from dropout_api.report import StageError
from dropout_api.task import CommandTask, TrainTask
from dropout_trainer.errors import StageFailure
from dropout_trainer.stage import read_task, shortened, write_report
from dropout_trainer.train import command
from dropout_trainer.train.launch import Layout, launch

STOPPING = (signal.SIGTERM, signal.SIGINT)
"""The kubelet's way to stop a pod, and Ctrl-C at a terminal."""
UNEXPECTED_EXIT = 1
SHOW_CURSOR = "\x1b[?25h"

Handler = Callable[[int, FrameType | None], object]
log = logging.getLogger(__name__)


class Terminated(BaseException):
    """One of STOPPING arrived. Not an Exception, so that no handler in a user's code takes it for a failure of its own."""

    def __init__(self, where: str = "before its first epoch", number: int = signal.SIGTERM) -> None:
        super().__init__(where)
        self.where, self.number = where, number

    @property
    def signal(self) -> str:
        return signal.Signals(self.number).name

    @property
    def exit_code(self) -> int:
        """What a shell says of a process that the signal has ended."""
        return 128 + self.number


class Preempted(Terminated):
    """One of STOPPING arrived, and a later attempt can go on from a checkpoint."""


def run_stage() -> int:
    """Runs `dropout train` and returns its exit code; of a training of several processes, those of this node. As one of them it ends the
    process."""
    code = _run_stage()
    if Torchrun.RANK in os.environ:
        leave(code)
    return code


def leave(code: int) -> NoReturn:
    """Ends a process of several with this exit code. torch.distributed may have threads to the last, even when it has been left: the
    interpreter's way to end meets them as they run, at times, which is SIGABRT instead of the code."""
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # closed, or nobody reads it
            stream.flush()
    os._exit(code)


def _run_stage() -> int:
    try:
        with stoppable():
            if command.is_asked_for():
                return command.run(read_task(CommandTask))
            task = read_task(TrainTask)
            if Torchrun.RANK in os.environ:
                _quieten(int(os.environ[Torchrun.RANK]))
            elif task.spec.world_size > 1:
                return launch([sys.executable, "-m", "dropout_trainer", "train"], Layout.of(task.spec))
            from dropout_trainer.train.run import main

            if (report := main(task)) is not None:
                write_report(report)
    except StageFailure as failure:
        return _end(failure.reason, failure.message, failure.exit_code)
    except Preempted as end:
        return _end("Preempted", f"training was stopped by {end.signal} {end.where}; its checkpoint is saved", ExitCode.PREEMPTED)
    except Terminated as end:
        return _end("Terminated", f"training was stopped by {end.signal} {end.where}", end.exit_code)
    except Exception as error:
        log.exception("this is a bug in dropout-operator or in a library, please report it:")
        return _end("Unexpected", f"{type(error).__name__}: {error}", UNEXPECTED_EXIT)
    else:
        return 0


def _quieten(rank: int) -> None:
    """All ranks would say the same: those above 0 only warn, and say who they are. Before torch is imported."""

    def name(record: logging.LogRecord) -> bool:
        record.msg = f"rank {rank}: {record.msg}"
        return True

    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # DistributedDataParallel regrets in four lines what we ask of it
    if rank:
        logging.getLogger().setLevel(logging.WARNING)
        for handler in logging.getLogger().handlers:
            handler.addFilter(name)


@contextmanager
def stoppable() -> Iterator[None]:
    """Within the block, each of STOPPING raises Terminated at once."""
    previous = _handle(_terminate)
    try:
        yield
    finally:
        _restore(previous)


@contextmanager
def decided() -> Iterator[None]:
    """Within the block SIGTERM is nothing: how the training ends is known, as that a peer is lost, and those who see to that end of the
    others send one."""
    previous = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


@contextmanager
def noting() -> Iterator[Callable[[], int]]:
    """Within the block none of STOPPING ends anything by itself: what is given answers the one that has come, 0 before.

    Raises Terminated at the block's end when one has and nobody has raised it before.
    """
    came: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        came.append(number)
        _only_once()

    previous = _handle(note)
    yield lambda: came[0] if came else 0  # not restored where this raises: the end is decided, and a signal that comes of it is no other
    _restore(previous)  # before the look, or one that comes between the two would be lost
    if came:
        _only_once()
        raise Terminated(number=came[0])


def _end(reason: str, message: str, code: int) -> int:
    log.error("%s: %s", reason, message)
    write_report(StageError(stage=Stage.TRAIN.value, reason=reason, message=shortened(message)))
    return code


def _handle(handler: Handler) -> dict[int, Any]:
    """What handled STOPPING before."""
    return {number: signal.signal(number, handler) for number in STOPPING}


def _restore(previous: dict[int, Any]) -> None:
    for number, handler in previous.items():
        signal.signal(number, handler)


def _terminate(number: int, _frame: FrameType | None) -> NoReturn:
    _only_once()
    raise Terminated(number=number)


def _only_once() -> None:
    """What is being saved is not cut off by another SIGTERM, which often comes to a whole process group; a second Ctrl-C is meant."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, _end_at_once)


def _end_at_once(number: int, _frame: FrameType | None) -> NoReturn:
    if sys.stderr.isatty():
        os.write(2, SHOW_CURSOR.encode())  # bars hide it
    os._exit(128 + number)
