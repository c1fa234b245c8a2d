"""job.export leaves a candidate that the gate passes, whatever stands around the model; what does not go together is one line that says
what to do. Ranks above 0 leave nothing."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from dropout_testing.own_loops import MakeJob, network, record_of
from torch import Tensor, nn

from dropout_api.candidate import FILES, MANIFEST, CandidateConfig
from dropout_api.report import TrainReport
from dropout_trainer.data import Data, Split
from dropout_trainer.errors import StageFailure
from dropout_trainer.gate import gate
from dropout_trainer.loop.job import Job

TEST = (torch.randn(40, 6, generator=torch.Generator().manual_seed(1)), torch.arange(40) % 3)
PLAN: dict[str, Any] = {"dropout": {"layers": [{"match": "3", "rate": 0.3, "schedule": {"kind": "Linear", "fraction": 1.0}}]}}


class Answer(nn.Module):
    """As Hugging Face's models answer."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, pixel_values: Tensor) -> Any:
        return SimpleNamespace(loss=None, logits=self.inner(pixel_values))


def exported(job: Job, monkeypatch: pytest.MonkeyPatch, model: nn.Module, data: Any, tmp_path: Path) -> CandidateConfig:
    """The configuration of the candidate, once the gate has looked at all of it."""
    kept = tmp_path / "kept"
    kept.mkdir()
    monkeypatch.setattr(record_of(job), "upload", lambda files, seconds: [shutil.copy(path, kept) for path in files])
    job.export(model, data)
    assert {path.name for path in kept.iterdir()} == {*FILES, MANIFEST}
    inspection = gate.inspect(kept, [], job.spec.export, {})
    assert inspection.report.passed, inspection.report.message
    assert inspection.config is not None
    return inspection.config


def test_a_model_with_a_plan(make_job: MakeJob, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    job, model = make_job(**PLAN, training={"epochs": 4}), network()
    job.apply(model)
    job.log(1, train_loss=1.0, val_loss=1.5)
    config = exported(job, monkeypatch, model, TEST, tmp_path)
    assert [(row.layer, row.rate, row.why) for row in config.plan] == [("3", 0.3, "rule 1 (3)")]
    assert config.task.outputs == 3
    report = TrainReport.model_validate_json((tmp_path / "report.json").read_text())
    assert (report.reason, report.epoch, report.epochs) == ("Trained", 1, 4)
    assert report.metrics["val_gap"] == 0.5
    assert "test_accuracy" in report.metrics


def test_what_answers_an_object_with_logits(make_job: MakeJob, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    job, inner = make_job(**PLAN), network()
    job.apply(inner)
    assert exported(job, monkeypatch, Answer(inner), TEST, tmp_path).task.outputs == 3


def test_an_average_of_the_weights(make_job: MakeJob, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A copy of the model that has the plan has the plan."""
    job, model = make_job(dropout={"rate": 0.2}), network()
    job.apply(model)
    average = torch.optim.swa_utils.AveragedModel(model)
    assert exported(job, monkeypatch, average.module, TEST, tmp_path).plan[0].rate == 0.2


def test_values_and_the_deviation_of_all_the_data(make_job: MakeJob, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    job, model = make_job(), nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.1), nn.Linear(8, 1))
    inputs, values = TEST[0], TEST[0].sum(1, keepdim=True)
    data = Data(Split(inputs, 10 * values), Split(inputs, values), Split(inputs, values))
    config = exported(job, monkeypatch, model, data, tmp_path)
    assert config.task.deviation == pytest.approx([10 * float(values.double().std())])
    assert config.plan[0].why == "model"


def test_other_ranks_leave_nothing(make_job: MakeJob, tmp_path: Path) -> None:
    job, model = make_job(rank=1, **PLAN), network()
    job.apply(model)
    job.log(1, train_loss=1.0)
    job.export(model, TEST)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("data", "words"), [
    ((TEST[0], TEST[1].int()), r"job\.export: test\.targets must be \[N\] of int64 .* not \[40\] of int32"),
    ((TEST[0].double(), TEST[1]), r"test\.inputs must be float32 or int64, not float64"),
    ((TEST[0], TEST[1][:-1]), r"test\.inputs has 40 rows but targets has 39"),
    ((TEST[0], TEST[1] + 2), "answers 3 columns, but the targets need 5"),
    ((TEST[0], torch.ones(40, 2)), "answers 3 columns, but the targets need 2"),
    (TEST[0], r"takes the test set as \(inputs, targets\)"),
])
def test_data_that_do_not_fit(make_job: MakeJob, data: Any, words: str) -> None:
    with pytest.raises(StageFailure, match=words):
        make_job().export(network(), data)


def test_a_model_that_answers_otherwise(make_job: MakeJob) -> None:
    with pytest.raises(StageFailure, match=r"answers \[4\] to 4 inputs; it must answer logits or values \[4, outputs\]"):
        make_job().export(nn.Sequential(nn.Linear(6, 1), nn.Flatten(0)), TEST)


def test_a_plan_that_was_never_applied(make_job: MakeJob) -> None:
    with pytest.raises(StageFailure, match=r"spec\.dropout is set, but the program never called job\.apply\(model\)"):
        make_job(**PLAN).export(network(), TEST)


def test_another_model_than_the_plan_is_in(make_job: MakeJob) -> None:
    job = make_job(**PLAN)
    job.apply(network())
    with pytest.raises(StageFailure, match=r"job\.export got another model than job\.apply"):
        job.export(nn.Sequential(nn.Linear(6, 3)), TEST)


def test_dropout_that_the_program_has_changed(make_job: MakeJob) -> None:
    job, model = make_job(**PLAN), network()
    job.apply(model)
    model[3].p = 0.9  # type: ignore[union-attr,assignment,operator,index]
    job.plan._moving.clear()  # type: ignore[union-attr]
    with pytest.raises(StageFailure, match="layer 3"):
        job.export(model, TEST)


@pytest.mark.parametrize(("metrics", "words"), [
    ({"train_loss": float("nan")}, "train_loss is nan after epoch 2"), ({"Accuracy": 1.0}, "'Accuracy' is no name for a metric"),
])
def test_metrics_that_cannot_be(make_job: MakeJob, metrics: dict[str, float], words: str) -> None:
    with pytest.raises(StageFailure, match=words):
        make_job().log(2, **metrics)


def test_what_is_logged_is_the_platforms_vocabulary(make_job: MakeJob) -> None:
    job = make_job(training={"epochs": 2})
    job.log(1, train_loss=0.5, val_loss=0.75, val_accuracy=0.9)
    job.log(2, val_loss=0.5)
    (first, one), (second, two) = record_of(job).points
    assert (one, two) == (1, 2)
    assert {name: value for name, value in first.items() if name != "epoch_seconds"} == {
        "train_loss": 0.5, "val_loss": 0.75, "val_gap": 0.25, "val_accuracy": 0.9,
    }
    assert second.keys() == {"val_loss", "epoch_seconds"}
    assert job.recorder is not None
    assert json.loads(job.recorder.progress().to_json())["epoch"] == 2


def test_rates_follow_the_epochs(make_job: MakeJob) -> None:
    job, model = make_job(**PLAN, training={"epochs": 3}), network()
    job.apply(model)
    rates = []
    for epoch in (1, 2, 3):
        rates.append(model[3].p)  # type: ignore[index]
        job.log(epoch, train_loss=1.0)
    assert rates == pytest.approx([0.0, 0.1, 0.2])
