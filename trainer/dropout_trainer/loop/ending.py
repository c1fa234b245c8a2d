"""However a user's program ends, the job learns why: an uncaught exception becomes a report and an exit code by kind."""

import logging
import os
import sys
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import NoReturn

from dropout_api.names import Env, ExitCode, Stage, Torchrun
from dropout_api.report import StageError
from dropout_trainer.errors import StageFailure
from dropout_trainer.stage import shortened, write_report
from dropout_trainer.train.distributed import World
from dropout_trainer.train.ending import Preempted, Terminated, leave
from dropout_trainer.train.usercode import user_code

log = logging.getLogger(__name__)


def report_endings(where: Callable[[], str] = lambda: "before its first epoch") -> None:
    """From here on, for this process; `where` says how far it has come."""
    sys.excepthook = partial(_end, where)


def told(error: BaseException) -> StageFailure | Terminated:
    """`error` as the way to end that it is. An exception of the user's code is told with its place and, where torch's words leave it
    open, a remedy; of several processes, one that comes of a peer's end is PeerLost."""
    if isinstance(error, StageFailure | Terminated):
        return error
    try:
        with user_code("spec.command", "the program:main"), World.of().watching():
            raise error
    except StageFailure as failure:
        return failure
    except BaseException as other:  # as KeyboardInterrupt
        return StageFailure("UserCode", f"spec.command: {type(other).__name__}", ExitCode.USER_CODE)


def _end(where: Callable[[], str], kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> NoReturn:
    """Called by the interpreter, which takes SystemExit from here as from anywhere."""
    end = told(error)
    if end is not error and end.exit_code != ExitCode.PEER_LOST:
        sys.__excepthook__(kind, error, trace)
    if isinstance(end, StageFailure):
        _leave(end.reason, end.message, end.exit_code)
    stopped = f"training was stopped by {end.signal} {where()}"
    if isinstance(end, Preempted):
        _leave("Preempted", f"{stopped}; its checkpoint is saved", ExitCode.PREEMPTED)
    _leave("Terminated", stopped, end.exit_code)


def _leave(reason: str, message: str, code: int) -> NoReturn:
    if Env.TERMINATION_LOG not in os.environ:  # else the process that has started this one tells it
        log.error("%s: %s", reason, message)
    write_report(StageError(stage=Stage.TRAIN.value, reason=reason, message=shortened(message)))
    if Torchrun.RANK in os.environ:
        leave(code)
    raise SystemExit(code)
