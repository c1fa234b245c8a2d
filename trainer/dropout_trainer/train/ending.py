"""How a training pod ends: every way to end becomes one exit code, one line for people and one report.

This module imports no torch, so that SIGTERM has a handler before the slow imports: without one, a container's first
process ignores the signal until the kubelet kills it.
"""

import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from dropout_api.names import ExitCode, Stage
from dropout_api.report import StageError
from dropout_trainer.errors import StageFailure
from dropout_trainer.stage import shortened, write_report

SIGTERM_EXIT = 128 + signal.SIGTERM
UNEXPECTED_EXIT = 1

log = logging.getLogger(__name__)


class Terminated(BaseException):
    """SIGTERM arrived. Not an Exception, so that no handler in a user's code takes it for a failure of its own."""

    def __init__(self, where: str = "before its first epoch") -> None:
        super().__init__(where)
        self.where = where


class Preempted(Terminated):
    """SIGTERM arrived, and a later attempt can go on from a checkpoint."""


def run_stage() -> int:
    """Runs `dropout train` and returns its exit code."""
    previous = signal.signal(signal.SIGTERM, _terminate)
    try:
        from dropout_trainer.train.run import main

        write_report(main())
    except StageFailure as failure:
        return _end(failure.reason, failure.message, failure.exit_code)
    except Preempted as end:
        return _end("Preempted", f"training was stopped by SIGTERM {end.where}; its checkpoint is saved", ExitCode.PREEMPTED)
    except Terminated as end:
        return _end("Terminated", f"training was stopped by SIGTERM {end.where}", SIGTERM_EXIT)
    except Exception as error:
        log.exception("this is a bug in dropout-operator or in a library, please report it:")
        return _end("Unexpected", f"{type(error).__name__}: {error}", UNEXPECTED_EXIT)
    else:
        return 0
    finally:
        signal.signal(signal.SIGTERM, previous)


@contextmanager
def noting(number: int = signal.SIGTERM) -> Iterator[Callable[[], bool]]:
    """Within the block the signal ends nothing by itself: what is given says whether it has come.

    Raises Terminated at the block's end when it has and nobody has raised it before.
    """
    came: list[int] = []
    previous = signal.signal(number, lambda *_: came.append(number))
    try:
        yield lambda: bool(came)
    finally:
        signal.signal(number, signal.SIG_IGN if came else previous)
    if came:
        raise Terminated


def _end(reason: str, message: str, code: int) -> int:
    log.error("%s: %s", reason, message)
    write_report(StageError(stage=Stage.TRAIN.value, reason=reason, message=shortened(message)))
    return code


def _terminate(_number: int, _frame: FrameType | None) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Terminated
