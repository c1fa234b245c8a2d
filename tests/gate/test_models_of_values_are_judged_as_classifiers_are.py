"""Regression and quantile candidates go through the whole gate: sound ones pass, others are found out whatever their unit is."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from dropout_testing import zoo
from torch import Tensor, nn

from dropout_api.candidate import CONFIG, CandidateConfig, Task
from dropout_api.metrics import QualityBar
from dropout_api.spec import ExportSpec, Format
from dropout_api.training import Loss
from dropout_api.verdict import Outcome
from dropout_trainer.data import Data, Split
from dropout_trainer.gate import gate
from dropout_trainer.gate.candidate import Heldout, read_heldout
from dropout_trainer.train.candidate import write_candidate
from dropout_trainer.train.export import eval_copy
from dropout_trainer.train.objective import make_task

PLAIN = Task(kind="Regression", outputs=2, loss="MSE", deviation=[1.0, 50.0])
QUANTILES = Task(kind="Regression", outputs=6, loss="Quantile", quantiles=[0.1, 0.5, 0.9], deviation=[1.0, 50.0])
WITH_ALL = ExportSpec(mc_passes=8, formats=[Format.PT2, Format.ONNX])
FAR_OFF = torch.tensor([1000.0, 20_000.0])


class Values(nn.Module):
    """Values of units as different as those of PLAIN, far from 0 where `offset` says so."""

    def __init__(self, task: Task = PLAIN, offset: Tensor | None = None, rate: float = 0.2) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(zoo.FEATURES, 32), nn.ReLU(), nn.Dropout(rate), nn.Linear(32, task.outputs))
        wide = max(1, len(task.quantiles))
        self.register_buffer("unit", torch.tensor(task.deviation).repeat_interleave(wide) * 2)
        self.register_buffer("offset", (torch.zeros(2) if offset is None else offset).repeat_interleave(wide))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x) * self.unit + self.offset


def outcomes(folder: Path, export: ExportSpec = gate.PLAIN) -> dict[str, Outcome]:
    return {check.name: check.outcome for check in gate.inspect(folder, (), export).report.checks}


@pytest.mark.parametrize("task", [PLAIN, QUANTILES], ids=["values", "quantiles"])
@pytest.mark.parametrize("offset", [None, FAR_OFF], ids=["near 0", "far from 0"])
def test_a_sound_one_passes_in_every_form(task: Task, offset: Tensor | None, tmp_path: Path) -> None:
    network = Values(task, offset)
    made = zoo.candidate(tmp_path / "candidate", network, task=task)
    zoo.add_onnx(made.folder, network.eval())
    network.net.train()
    zoo.add_mc(made.folder, network)

    report = gate.inspect(made.folder, [QualityBar(metric="mae", max=10), QualityBar(metric="r2", min=0.8)], WITH_ALL).report

    assert report.passed, report.message
    assert set(report.metrics) == {"test_loss", "test_mae", "test_r2"}
    said = {check.name: check.evidence for check in report.checks}
    assert "40 held-out rows, 2 values a row" in said["candidate"]
    assert "2 bars" in said["quality"]


def test_a_live_dropout_is_found(tmp_path: Path) -> None:
    made = zoo.candidate(tmp_path / "candidate", Values(), "train", PLAIN)

    assert outcomes(made.folder)["graph"] is Outcome.FAILED


def test_a_program_that_is_off_by_a_tenth_of_a_deviation_is_not_the_model_however_large_its_values_are(tmp_path: Path) -> None:
    network = Values(offset=FAR_OFF)
    made = zoo.candidate(tmp_path / "candidate", network, task=PLAIN)
    heldout = zoo.heldout_of(network, PLAIN)
    zoo.write_heldout(made.folder, replace(heldout, output=heldout.output + torch.tensor([0.3, 0.0])))  # 0.0003 of its size
    zoo.seal(made.folder)

    report = gate.inspect(made.folder).report

    assert [check.name for check in report.failed] == ["parity"]


def test_nor_is_an_mc_program_that_forgets_to_scale_however_large_its_values_are(tmp_path: Path) -> None:
    class Forgetful(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * torch.bernoulli(torch.full_like(x, 0.8)) if self.training else x

    network = Values(offset=FAR_OFF)
    network.net[2] = Forgetful()
    made = zoo.candidate(tmp_path / "candidate", network, task=PLAIN)
    network.net.train()
    zoo.add_mc(made.folder, network)

    assert outcomes(made.folder, ExportSpec(mc_passes=8))["mc_mean"] is Outcome.FAILED


def test_a_worse_one_misses_its_bar(tmp_path: Path) -> None:
    made = zoo.candidate(tmp_path / "candidate", Values(QUANTILES), task=QUANTILES)

    report = gate.inspect(made.folder, [QualityBar(metric="interval_coverage", min=0.8), QualityBar(metric="mae", max=1e-3)]).report

    assert [check.name for check in report.failed] == ["quality"]
    assert "test_interval_coverage" in report.message
    assert "below min 0.8 of spec.gate[0]; test_mae" in report.message
    assert {"test_interval_coverage", "test_mae", "test_loss"} == set(report.metrics)


def change(**fields: object) -> Callable[[Heldout, Task], tuple[Heldout, Task]]:
    return lambda heldout, task: (heldout, task.model_copy(update=fields))


def rows(change: Callable[[Heldout], Heldout]) -> Callable[[Heldout, Task], tuple[Heldout, Task]]:
    return lambda heldout, task: (change(heldout), task)


NORTH = {"segment_names": ["north", "south"]}
CONTRADICTIONS: dict[str, tuple[Callable[[Heldout, Task], tuple[Heldout, Task]], str]] = {
    "a loss of another kind": (change(loss="CrossEntropy"), "task.loss CrossEntropy does not go with Regression"),
    "a deviation too few": (change(deviation=[1.0]), "task.deviation must be 2 positive numbers"),
    "a deviation of zero": (change(deviation=[1.0, 0.0]), "task.deviation must be 2 positive numbers"),
    "a deviation that is no number": (change(deviation=[1.0, float("nan")]), "task.deviation"),
    "outputs without end": (change(outputs=10**15), "task.deviation must be 1000000000000000 positive numbers"),
    "quantiles without their loss": (change(quantiles=[0.5]), "task.quantiles must rise"),
    "quantiles that fall": (change(loss="Quantile", quantiles=[0.9, 0.5]), "task.quantiles must rise"),
    "quantiles without a median": (change(loss="Quantile", quantiles=[0.1, 0.9]), "task.quantiles must rise"),
    "outputs that are no multiple": (change(loss="Quantile", quantiles=[0.1, 0.5, 0.9]), "no multiple of 3 quantiles"),
    "names of classes": (change(class_names=["a", "b"]), "task.classNames has 2 names"),
    "class numbers": (rows(lambda heldout: replace(heldout, target=heldout.target[:, 0].long())), "target is [40] torch.int64"),
    "too few values a row": (rows(lambda heldout: replace(heldout, target=heldout.target[:, :1].clone())), "target is [40, 1]"),
    "a target that is no number": (rows(lambda heldout: replace(heldout, target=heldout.target / 0)), "target holds NaN or infinity"),
    "a scalar for targets": (rows(lambda heldout: replace(heldout, target=torch.tensor(1.0))), "target is [] torch.float32, not [40, 2]"),
    "segments without names": (rows(lambda heldout: replace(heldout, segment=torch.zeros(40).long())), "not input, output, target"),
    "names without segments": (change(**NORTH), "not input, output, target, segment"),
    "a segment too far": (
        lambda heldout, task: (replace(heldout, segment=torch.full((40,), 2)), task.model_copy(update=NORTH)), "segments lie outside 0..1"),
    "segments of floats": (
        lambda heldout, task: (replace(heldout, segment=torch.zeros(40)), task.model_copy(update=NORTH)), "segment is [40] torch.float32"),
}


@pytest.mark.parametrize("what", CONTRADICTIONS)
def test_a_held_out_set_is_refused_for(what: str, tmp_path: Path) -> None:
    spoil, words = CONTRADICTIONS[what]
    made = zoo.candidate(tmp_path / "candidate", Values(), task=PLAIN)
    heldout, task = spoil(zoo.heldout_of(Values(), PLAIN), PLAIN)
    zoo.write_heldout(made.folder, heldout)
    (made.folder / CONFIG).write_text(made.config.model_copy(update={"task": task}).to_json())
    zoo.seal(made.folder)

    report = gate.inspect(made.folder).report

    assert [check.name for check in report.failed] == ["candidate"]
    assert words in report.message


def test_a_classification_of_one_class_is_none(tmp_path: Path) -> None:
    made = zoo.candidate(tmp_path / "candidate", zoo.SOUND["mlp"].build())
    config = CandidateConfig.model_validate_json((made.folder / CONFIG).read_text())
    (made.folder / CONFIG).write_text(config.model_copy(update={"task": Task(outputs=1)}).to_json())
    zoo.seal(made.folder)

    assert "there are two classes at least" in gate.inspect(made.folder).report.message


@pytest.mark.parametrize("loss", [Loss(), Loss(name="Quantile", quantiles=[0.1, 0.5, 0.9])], ids=["MSE", "Quantile"])
def test_what_the_trainer_writes_is_what_the_gate_reads(loss: Loss, tmp_path: Path) -> None:
    source = torch.Generator().manual_seed(7)
    rows = torch.randn(90, zoo.FEATURES, generator=source)
    whole = Split(rows, torch.stack([rows.sum(1), 50 * rows[:, 0]], 1), torch.arange(90) % 2)
    data = Data(*(whole.take(torch.arange(start, start + 30)) for start in (0, 30, 60)), segment_names=("north", "south"))
    task, copy = make_task(data, loss), eval_copy(nn.Linear(zoo.FEATURES, 2 * max(1, len(loss.quantiles))))
    write_candidate(tmp_path, copy, data.test, zoo.config_of(task=task), ExportSpec())

    report = gate.inspect(tmp_path, [QualityBar(metric="rmse", segment="south", max=1000)]).report

    assert report.passed, report.message
    heldout = read_heldout(tmp_path, zoo.config_of(task=task))
    assert torch.equal(heldout.target, data.test.targets)
    assert heldout.segment is not None
    assert data.test.segments is not None
    assert torch.equal(heldout.segment, data.test.segments)
