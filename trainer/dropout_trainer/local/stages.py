"""The stages of a pod, here: training in this process, or in a program of the user's, and the verifier in a process of its own."""

import contextlib
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console

from dropout_api.model import Wire
from dropout_api.names import Env, ExitCode
from dropout_api.report import StageError, TrainReport, VerifyReport, parse
from dropout_api.task import CommandTask, TrainTask, VerifyTask
from dropout_trainer.errors import StageFailure, ToldFailure
from dropout_trainer.train.ending import Preempted, Terminated, noting
from dropout_trainer.train.groups import dies_with

TRAINER = (sys.executable, "-m", "dropout_trainer", "train")
VERIFIER = (sys.executable, "-P", "-m", "dropout_trainer", "verify")
"""Without the current folder among its modules: the user's code has no part in the verdict."""
KEYS = (Env.SIGNING_KEY.value, Env.VERIFYING_KEY.value)
"""A platform's; what is registered here is unsigned."""
STOP_SECONDS = 30.0
"""What a program has to save itself, as a pod."""
LAST_WORDS = 600
log = logging.getLogger(__name__)


def train(task: TrainTask, connect: Callable[[], Any]) -> TrainReport:
    """Trains here, and records in the MLflow whose client `connect` gives: a user's code may have set another for this process.

    Raises StageFailure, and Terminated or Preempted with the epoch that was reached.
    """
    from dropout_trainer.train.following import FAREWELL_SECONDS
    from dropout_trainer.train.run import train as stage
    from dropout_trainer.train.telemetry import Telemetry, Watcher
    from dropout_trainer.train.tracking import tracking_of
    from dropout_trainer.train.trials import all_epochs

    tracking = tracking_of(task, connect)
    watcher: Watcher | None = None
    with contextlib.ExitStack() as shown:
        if sys.stderr.isatty():
            from dropout_trainer.local.bars import Bars

            watcher = bars = Bars(Console(stderr=True))
            shown.enter_context(bars.shown())
        telemetry = Telemetry(task.attempt, all_epochs(task.spec.training), lambda: tracking.healthy, watcher)
        try:
            report = stage(task, tracking, telemetry)
            assert report is not None  # one process is rank 0
            return report
        except Terminated as end:
            at = telemetry.progress()
            where = f"after epoch {at.epoch} of {at.epochs}" if at.epoch else end.where
            raise type(end)(where, end.number) from None
        finally:
            tracking.drain(FAREWELL_SECONDS)


def run_command(task: CommandTask) -> None:
    """Runs the user's own program to its end, as a pod does. Raises StageFailure, Terminated and Preempted as `train` does."""
    with TemporaryDirectory(prefix="command-") as folder:
        code, answer = _run(TRAINER, task, Path(folder), os.environ, None)
    if code == ExitCode.PREEMPTED:
        raise Preempted("by itself")
    if code:
        known = ExitCode(code) if code in set(ExitCode) and code >= ExitCode.USAGE else ExitCode.USER_CODE
        if failure := parse(StageError, answer):
            raise ToldFailure(failure.reason, failure.message, known)
        raise StageFailure("UserCode", f"spec.command: {task.spec.command[0]} ended {_how(code)}", known)


def verify(task: VerifyTask) -> VerifyReport:
    """The verdict. Raises StageFailure when the verifier could not reach one, and Terminated."""
    with TemporaryDirectory(prefix="verify-") as folder, _told("the verifier checks the exported model"):
        words = Path(folder) / "words"
        environment = {name: value for name, value in os.environ.items() if name not in KEYS}
        code, answer = _run(VERIFIER, task, Path(folder), environment, words)
        verdict = parse(VerifyReport, answer)
        if code == 0 and verdict is not None:
            return verdict
        failure = parse(StageError, answer)
        if failure is not None and code in set(ExitCode):
            raise StageFailure(failure.reason, failure.message, ExitCode(code))
        last = " ".join(words.read_text(encoding="utf-8", errors="replace").split())[-LAST_WORDS:]
        message = f"the verifier ended {_how(code)}, without a verdict; its last words: {last}"
        raise StageFailure("VerificationFailed", message, ExitCode.TRACKING_UNAVAILABLE)


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    """What is waited for: at a terminal it can be seen that something still goes on."""
    if not sys.stderr.isatty():
        log.info("%s", what)
        yield
        return
    with Console(stderr=True).status(what):
        yield


def _run(command: Sequence[str], task: Wire, folder: Path, environment: Mapping[str, str], words: Path | None) -> tuple[int, str]:
    """Exit code and termination message of a stage. With `words` its output goes there, and it works in `folder`.

    Raises what interrupts this process once that one has ended, as Preempted where it says that it has saved itself.
    """
    answer = folder / "answer"
    answer.touch()
    told = {**environment, Env.TASK.value: task.to_json(), Env.TERMINATION_LOG.value: str(answer)}
    with contextlib.ExitStack() as stack:
        output = stack.enter_context(words.open("wb")) if words else None
        with noting():  # what arrives amid the start would leave a process that nobody knows of
            process = subprocess.Popen(
                command, env=told, cwd=folder if words else None, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=words is not None,  # Ctrl-C would give its words a traceback
                preexec_fn=dies_with(os.getpid()),  # or it would go on beside the next one, when this process is killed
            )
            stack.enter_context(_ended_with_us(process))
        return process.wait(), answer.read_text(encoding="utf-8")


@contextlib.contextmanager
def _ended_with_us(process: subprocess.Popen[bytes]) -> Iterator[None]:
    try:
        yield
    except BaseException as end:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
        process.kill()
        if process.wait() == ExitCode.PREEMPTED and isinstance(end, Terminated):
            raise Preempted(end.where, end.number) from None
        raise


def _how(code: int) -> str:
    return f"with exit code {code}" if code >= 0 else f"by {signal.Signals(-code).name}"
