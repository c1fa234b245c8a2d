"""A copy taken between any two steps, and read back from its files, leads another training to the very same curve and weights."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from safetensors.torch import save
from torch import Tensor, nn

from dropout_api.metrics import MetricName
from dropout_api.training import Checkpoint
from dropout_trainer.train.checkpoints.folder import LocalFolder
from dropout_trainer.train.checkpoints.read import latest
from dropout_trainer.train.checkpoints.saver import Content, Saver
from dropout_trainer.train.checkpoints.schema import Identity, Journal
from dropout_trainer.train.loop import EpochResult, Training, fit
from dropout_trainer.train.points import Points
from dropout_trainer.train.precision import Step
from dropout_trainer.train.state import Captured, Position, State, transient
from dropout_trainer.train.stopping import tensors_of

MINE = Identity(run="a" * 32, spec="b" * 64, data="c" * 64)
CASES: dict[str, dict[str, Any]] = {
    "AdamW, early stopping": {"early_stopping": {"patience": 1, "monitor": "val_accuracy"}},
    "SGD, accumulated": {"gradient_accumulation": 3, "optimizer": {"name": "SGD"}},
    "SGD without momentum": {"optimizer": {"name": "SGD", "momentum": 0}},
    "RMSprop, one cycle, bfloat16": {"optimizer": {"name": "RMSprop"}, "scheduler": {"name": "OneCycle"}, "precision": "BFloat16"},
    "metrics that are not defined": {"metrics": ["roc_auc_macro"], "early_stopping": {"patience": 2}},
}


class Moving(nn.Module):
    """Has a statistic that no state dict holds."""

    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()), persistent=False)

    def forward(self, inputs: Tensor) -> Tensor:
        if self.training:
            self.seen.add_(inputs.detach().mean())
        return inputs + 0.1 * self.seen


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), Moving(), nn.Linear(8, 3))


def told(results: list[EpochResult]) -> list[Any]:
    return [(result.epoch, repr(result.metrics()), result.kept) for result in results]


def weights(training: Training) -> bytes:
    return bytes(save({name: tensor.clone() for name, tensor in (tensors_of(training.model) | transient(training.model)).items()}))


@pytest.mark.parametrize("name", CASES)
def test_curve_and_weights_are_the_same(name: str, make_training: Callable[..., Training], tmp_path: Path) -> None:
    how = {"epochs": 3, "batch_size": 8, **CASES[name]}
    whole = make_training(network, **how)
    captured = list[Captured]()
    expected = list(fit(whole, between_steps=lambda state: captured.append(state.captured())))
    assert len(captured) > 6
    for number, copy in enumerate(captured):
        ended = copy.position.epoch - 1
        folder = LocalFolder(tmp_path / str(number))
        saver = Saver(folder, MINE, Checkpoint(volume_claim="c"))
        last = expected[ended - 1] if ended else None
        saver.save(Content(copy, None, Journal(kept=last, last=last)))
        saver.wait()
        other = make_training(network, **how)
        found = latest(folder, MINE, lambda _, other=other: other)  # type: ignore[misc]
        assert found is not None
        assert told([found.journal.last] if found.journal.last else []) == told(expected[ended - 1 : ended])
        assert told(list(fit(other, resume_from=found.captured))) == told(expected[ended:])
        assert weights(other) == weights(whole)


def test_numbers_that_are_not_finite_come_back() -> None:
    val = {MetricName.LOSS: math.inf, MetricName.ROC_AUC_MACRO: math.nan}
    last = EpochResult(1, 2, 0.1 + 0.2, -0.0, val, 1e-310, 1.0)
    journal = Journal(ended=[{"val_loss": math.nan}], last=last, unsent=[Points(1, 2, (("a/b", math.nan), ("c", -math.inf)))])
    back = Journal.model_validate_json(journal.to_json())
    assert repr(back) == repr(journal)


def test_copying_changes_nothing(make_training: Callable[..., Training]) -> None:
    def between_steps(state: State) -> None:
        state.captured()

    first = make_training(network)
    expected = told(list(fit(first)))
    second = make_training(network)
    assert told(list(fit(second, between_steps=between_steps))) == expected
    assert weights(first) == weights(second)


def test_the_time_before_counts_into_the_epochs(make_training: Callable[..., Training]) -> None:
    captured = list[Captured]()
    ticks = iter(range(1000))
    for _ in fit(make_training(epochs=1), lambda: float(next(ticks)), between_steps=lambda state: captured.append(state.captured())):
        pass
    before = captured[1].position.seconds
    assert before > 0
    [result] = fit(make_training(epochs=1), lambda: 0.0, captured[1])
    assert result.seconds == before


def test_the_scale_of_gradients_goes_on_from_its_file() -> None:
    """The CPU's scaler, in the place of the GPU's, which tests/gpu takes."""
    saved_as = TypeAdapter(Position.model_fields["scaler"].annotation)

    def scaled() -> tuple[Step, nn.Parameter]:
        weight = nn.Parameter(torch.ones(3))
        step = Step(torch.optim.SGD([weight], lr=0.1), "Float32", torch.device("cpu"), None)
        step._scaler = torch.amp.GradScaler("cpu", growth_interval=3)
        return step, weight

    def take(steps: int, step: Step, weight: nn.Parameter) -> None:
        for _ in range(steps):
            step.backward(weight.square().sum())
            step.update()

    whole, cut = scaled(), scaled()
    take(4, *whole)
    cut[0].restore_scaler(saved_as.validate_json(saved_as.dump_json(whole[0].scaler())))
    with torch.no_grad():
        cut[1].copy_(whole[1])
    take(4, *whole)
    take(4, *cut)
    assert cut[0].scaler() == whole[0].scaler()
    assert torch.equal(cut[1], whole[1])
    assert whole[0].scaler()["scale"] == 2.0**18  # type: ignore[index]  # after two growths
