"""A program of `spec.command` is told its task as in a pod, and its exit code and report become the training's end."""

import os
import signal
import sys
from typing import Any

import pytest

from dropout_api.names import ExitCode
from dropout_api.task import CommandTask
from dropout_trainer.errors import StageFailure
from dropout_trainer.local.stages import run_command
from dropout_trainer.train.ending import Preempted, Terminated, stoppable

REPORT = """
import json, os, sys
task = json.loads(os.environ["DROPOUT_TASK"])
with open(os.environ["DROPOUT_TERMINATION_LOG"], "w") as file:
    json.dump({"stage": "train", "reason": "DataMissing", "message": f"attempt {task['attempt']}: no rows"}, file)
sys.exit(66)
"""
SAVING = """
import os, signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
os.kill(os.getppid(), signal.SIGINT)
signal.pause()
"""


def command(program: str, *start: str) -> CommandTask:
    return CommandTask.model_validate({
        "job": {"cluster": "local", "namespace": "n", "name": "x", "uid": "u"}, "attempt": 2, "run": {"id": "a" * 32, "experimentId": "1"},
        "spec": {"command": [*(start or (sys.executable, "-c")), program]},
    })


def test_a_good_end() -> None:
    run_command(command("pass"))


@pytest.mark.parametrize(("task", "reason", "code", "says"), [
    (command(REPORT), "DataMissing", ExitCode.DATA_MISSING, "attempt 2: no rows"),
    (command("import sys; sys.exit(3)"), "UserCode", ExitCode.USER_CODE, "ended with exit code 3"),
    (command("import os; os.kill(os.getpid(), 9)"), "UserCode", ExitCode.USER_CODE, "ended by SIGKILL"),
    (command("train.py", "no-such-program"), "SpecInvalid", ExitCode.SPEC_INVALID, "no-such-program cannot be run: No such file"),
])
def test_a_bad_end(task: CommandTask, reason: str, code: ExitCode, says: str) -> None:
    with pytest.raises(StageFailure, match=says) as failure:
        run_command(task)
    assert (failure.value.reason, failure.value.exit_code) == (reason, code)


@pytest.mark.parametrize(("program", "end"), [
    (SAVING, Preempted), (SAVING.replace("75", "1"), Terminated), ("import sys; sys.exit(75)", Preempted),
])
def test_what_stops_us_stops_it(program: str, end: Any) -> None:
    with stoppable(), pytest.raises(Terminated) as stopped:
        run_command(command(program))
    assert type(stopped.value) is end
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
