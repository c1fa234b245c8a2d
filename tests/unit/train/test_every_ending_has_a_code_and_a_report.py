"""However `dropout train` ends, the kubelet finds one report and one exit code, and a user's mistake shows no traceback."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

import pytest

from dropout_api.names import Env, ExitCode, Metric
from dropout_api.report import MAX_REPORT_BYTES, TrainReport
from dropout_trainer import cli
from dropout_trainer.errors import StageFailure
from dropout_trainer.train import run
from dropout_trainer.train.ending import run_stage
from dropout_trainer.train.telemetry import Telemetry

TASK = {
    "job": {"cluster": "c", "namespace": "n", "name": "wine", "uid": "u"}, "attempt": 1, "run": {"id": "a" * 32, "experimentId": "1"},
    "spec": {
        "model": {"factory": "mlp", "args": {"hidden": [8]}}, "data": {"factory": "sklearn", "args": {"name": "wine"}},
        "training": {"epochs": 2, "batchSize": 16}, "dropout": {"rate": 0.25},
    },
}


@pytest.fixture(autouse=True)
def report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(Env.TERMINATION_LOG, str(tmp_path / "termination-log"))
    monkeypatch.setenv(Env.TASK, json.dumps(TASK))
    monkeypatch.setattr(run, "METRICS_PORT", 0)
    monkeypatch.setattr(run, "tracking_of", lambda task: Recorder(task.run.id))
    return tmp_path / "termination-log"


class Recorder:
    """Takes what a run is told, in memory."""

    healthy = True

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.points: list[tuple[int, dict[str, float]]] = []
        Recorder.last = self

    last: "Recorder"

    def start(self) -> None: ...
    def params(self, values: dict[str, object]) -> None:
        self.values = values

    def tag(self, name: str, value: str) -> None: ...
    def text(self, name: str, content: str) -> None: ...
    def table(self, name: str, columns: object, rows: object) -> None: ...
    def metrics(self, values: dict[str, float], step: int) -> None:
        self.points.append((step, values))

    def drain(self, seconds: float) -> int:
        return 0

    def upload(self, files: list[Path], seconds: float, folder: str = "candidate") -> None:
        self.files = [file.name for file in files]


def said(report: Path) -> dict[str, Any]:
    content = report.read_bytes()
    assert len(content) <= MAX_REPORT_BYTES
    result: dict[str, Any] = json.loads(content)
    return result


def test_a_training_that_went_well(report: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    assert run_stage() == 0
    answer = TrainReport.model_validate(said(report))
    assert (answer.reason, answer.epoch, answer.epochs) == ("Trained", 2, 2)
    assert {Metric.TRAIN_LOSS, Metric.VAL_LOSS, Metric.VAL_GAP, Metric.VAL_ACCURACY, Metric.TEST_ACCURACY} <= set(answer.metrics)
    assert [step for step, _ in Recorder.last.points] == [1, 2, 2]
    assert Recorder.last.files[-1] == "manifest.json"
    assert sum(record.message.startswith("epoch ") for record in caplog.records) == 2


def test_a_users_mistake_is_one_line(report: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv(Env.TASK, json.dumps(TASK | {"spec": TASK["spec"] | {"model": {"factory": "mlp", "args": {"hiden": [8]}}}}))  # type: ignore[operator]
    assert run_stage() == ExitCode.SPEC_INVALID
    assert said(report) == {
        "stage": "train", "reason": "SpecInvalid", "message": "spec.model.args.hiden: unknown field; known: hidden, activation, dropout",
    }
    assert "Traceback" not in caplog.text


def changed(monkeypatch: pytest.MonkeyPatch, **spec: object) -> None:
    monkeypatch.setenv(Env.TASK, json.dumps(TASK | {"spec": TASK["spec"] | spec}))  # type: ignore[operator]


def test_epochs_are_those_of_the_training_whose_model_is_kept(report: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changed(monkeypatch, training={"epochs": 2, "batchSize": 16, "crossValidation": {"folds": 3}})
    assert run_stage() == 0
    assert said(report)["message"] == "trained for 2 epochs after 3 trials, kept the weights of epoch 2"


def test_a_training_that_ends_before_late_dropout_has_its_mc_program_all_the_same(report: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rule = {"match": "*", "rate": 0.25, "schedule": {"kind": "Late", "fraction": 0.9}}
    stops_at_once = {"epochs": 20, "batchSize": 16, "earlyStopping": {"patience": 1, "minDelta": 5}}
    changed(monkeypatch, dropout={"layers": [rule]}, training=stops_at_once, export={"mcPasses": 2})
    assert run_stage() == 0, said(report)
    assert said(report)["epoch"] < 18
    assert "mc.pt2" in Recorder.last.files


def test_a_batch_too_small_for_batch_norm_is_the_manifests_mistake(report: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = {"factory": "cnn", "args": {"channels": [2, 2, 2, 2], "dense": 2}}  # its last norm sees images of one pixel
    data = {"factory": "sklearn", "args": {"name": "digits"}}
    changed(monkeypatch, model=model, data=data, training={"epochs": 1, "batchSize": 1})
    assert run_stage() == ExitCode.SPEC_INVALID
    assert said(report)["message"].endswith("batch norm needs more than one row, so raise spec.training.batchSize")


def test_without_a_task_there_is_a_usage_error(report: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(Env.TASK)
    assert run_stage() == ExitCode.USAGE
    assert said(report)["reason"] == "TaskMissing"


def test_an_image_of_an_older_version_is_told_to_be_built_anew(report: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(Env.TASK, json.dumps(TASK | {"spec": TASK["spec"] | {"fieldOfTomorrow": 1}}))  # type: ignore[operator]
    assert run_stage() == ExitCode.SPEC_INVALID
    assert "task.spec.fieldOfTomorrow" in said(report)["message"]
    assert "build the image anew from the platform's trainer image" in said(report)["message"]


def test_a_long_message_is_cut_to_what_a_report_may_hold(report: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> NoReturn:
        raise StageFailure("UserCode", "x" * 9000, ExitCode.USER_CODE)

    monkeypatch.setattr(run, "train", fail)
    assert run_stage() == ExitCode.USER_CODE
    assert " … " in said(report)["message"]


def test_a_bug_keeps_its_traceback(report: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def fail(*_: object) -> NoReturn:
        raise RuntimeError("oops")

    monkeypatch.setattr(run, "train", fail)
    assert run_stage() == 1
    assert said(report)["message"] == "RuntimeError: oops"
    assert "Traceback" in caplog.text


def test_sigterm_ends_with_143_and_the_epoch_it_had_reached(report: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    observe = Telemetry.observe

    def observe_then_stop(self: Telemetry, result: Any) -> None:
        observe(self, result)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(Telemetry, "observe", observe_then_stop)
    assert run_stage() == 143
    assert said(report) == {"stage": "train", "reason": "Terminated", "message": "training was stopped by SIGTERM after epoch 1 of 2"}
    assert signal.getsignal(signal.SIGTERM) == before


def test_help_needs_no_torch(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 0
    assert "train" in capsys.readouterr().out


@pytest.mark.parametrize("program", [
    "from dropout_trainer.train.ending import run_stage; sys.exit(run_stage())", "from dropout_trainer.loop import start; start()",
])
def test_one_of_several_processes_has_its_code_whatever_the_interpreters_end_would_do(program: str) -> None:
    """As to destroy a thread of torch.distributed that runs."""
    aborts = "import atexit, os, sys\nkept = type('Kept', (), {'__del__': lambda self, abort=os.abort: abort()})()\n"
    known = f"{aborts}atexit.register(print, 'seen through')\n{program}"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DROPOUT_")} | {"RANK": "0"}
    done = subprocess.run([sys.executable, "-c", known], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (ExitCode.USAGE, "seen through\n"), done.stderr
