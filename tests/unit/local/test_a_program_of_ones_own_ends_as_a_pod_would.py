"""A program of `spec.command` is told its task as in a pod, and its exit code and report become the training's end."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from dropout_testing.processes import wait_until

from dropout_api.names import ExitCode
from dropout_api.task import CommandTask
from dropout_trainer.errors import ToldFailure
from dropout_trainer.local.stages import run_command
from dropout_trainer.train.ending import Preempted, Terminated, stoppable

EXPORTED = """
import json, os
with open(os.environ["DROPOUT_TERMINATION_LOG"], "w") as file:
    json.dump({"stage": "train", "reason": "Trained", "message": "for two epochs", "epoch": 2, "epochs": 2, "metrics": {}}, file)
"""
REPORT = """
import json, os, sys
task = json.loads(os.environ["DROPOUT_TASK"])
with open(os.environ["DROPOUT_TERMINATION_LOG"], "w") as file:
    json.dump({"stage": "train", "reason": "DataMissing", "message": f"attempt {task['attempt']}: no rows"}, file)
sys.exit(66)
"""
SAVING = """
import json, os, signal, sys

def saved(*_):
    with open(os.environ["DROPOUT_TERMINATION_LOG"], "w") as file:
        json.dump({"stage": "train", "reason": "Preempted", "message": "saved"}, file)
    sys.exit(75)

signal.signal(signal.SIGTERM, saved)
os.kill(int(os.environ["TOLD"]), signal.SIGINT)
signal.pause()
"""


def command(program: str, *start: str) -> CommandTask:
    return CommandTask.model_validate({
        "job": {"cluster": "local", "namespace": "n", "name": "x", "uid": "u"}, "attempt": 2, "run": {"id": "a" * 32, "experimentId": "1"},
        "spec": {"command": [*(start or (sys.executable, "-c")), program]},
    })


def test_a_good_end() -> None:
    run_command(command(EXPORTED))


@pytest.mark.parametrize(("task", "reason", "code", "says"), [
    (command(REPORT), "DataMissing", ExitCode.DATA_MISSING, "attempt 2: no rows"),
    (command("pass"), "NothingExported", ExitCode.USER_CODE, "call job.export"),
    (command("import sys; sys.exit(3)"), "UserCode", ExitCode.USER_CODE, "ended with exit code 3"),
    (command("import os; os.kill(os.getpid(), 9)"), "ProcessKilled", ExitCode.USER_CODE, "ended by SIGKILL"),
    (command("train.py", "no-such-program"), "UserCode", ExitCode.USER_CODE, "no-such-program cannot be started: No such file"),
])
def test_a_bad_end(task: CommandTask, reason: str, code: ExitCode, says: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ToldFailure, match=says) as failure:
        run_command(task)
    assert (failure.value.reason, failure.value.exit_code) == (reason, code)
    assert capfd.readouterr().err.count(f"{reason}: ") == 1


def test_it_does_not_outlive_us(tmp_path: Path) -> None:
    """Or it would go on beside the one that the next `dropout run` starts."""
    told = tmp_path / "pid"
    lasting = f"import os, signal; open({str(told)!r}, 'w').write(str(os.getpid())); signal.pause()"
    us = "import sys; from dropout_api.task import CommandTask; from dropout_trainer.local.stages import run_command; "
    us += "run_command(CommandTask.model_validate_json(sys.argv[1]))"
    process = subprocess.Popen([sys.executable, "-c", us, command(lasting).to_json()])
    wait_until("the program", lambda: told.exists() and told.read_text() != "")
    process.kill()
    process.wait()
    wait_until("its end", lambda: not Path(f"/proc/{told.read_text()}").exists())


@pytest.mark.parametrize(("program", "end"), [
    (SAVING, Preempted), (SAVING.replace("75", "1"), Terminated),
])
def test_what_stops_us_stops_it(program: str, end: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOLD", str(os.getpid()))
    before = signal.getsignal(signal.SIGINT)
    with stoppable(), pytest.raises(Terminated) as stopped:
        run_command(command(program))
    assert type(stopped.value) is end
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
    assert signal.getsignal(signal.SIGINT) is before
