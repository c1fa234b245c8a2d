"""The same spec gives the same curve and weights; losses mean what their names say; each mode switch is proved."""

import math
from typing import Any

import pytest
import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from dropout_api.metrics import MetricName
from dropout_api.names import ExitCode
from dropout_api.training import Loss
from dropout_trainer.data import Data, Split
from dropout_trainer.errors import StageFailure
from dropout_trainer.train.evaluating import evaluate
from dropout_trainer.train.loop import batches
from dropout_trainer.train.objective import make_task

GOLDEN_VAL_LOSSES = [1.019368, 1.003673, 0.988847, 0.974606]


def test_same_spec_same_curve_to_the_bit_and_same_weights(train: Any) -> None:
    first, second, other = train(), train(), train(seed=43)
    assert first.curve == second.curve
    assert save(first.model.state_dict()) == save(second.model.state_dict())
    assert first.curve != other.curve


def test_golden_curve(train: Any) -> None:
    assert [result.val_loss for result in train().curve] == pytest.approx(GOLDEN_VAL_LOSSES, rel=1e-4)


def test_the_gap_is_between_two_losses_in_eval_mode(train: Any, data: Data) -> None:
    trained = train(epochs=40)
    last = trained.curve[-1]
    assert not trained.model.training
    with torch.no_grad():
        val = F.cross_entropy(trained.model(data.val.inputs), data.val.targets).item()
        all_train = F.cross_entropy(trained.model(data.train.inputs), data.train.targets).item()
    assert last.val_loss == pytest.approx(val, rel=1e-5)
    assert last.val_gap == last.val_loss - last.train_loss
    assert last.train_loss == pytest.approx(all_train, rel=0.3)  # a sample of half of it


def test_with_a_sample_of_everything_the_train_loss_is_the_training_sets(train: Any, data: Data) -> None:
    swapped = Data(data.val, data.train, data.test, data.class_names)  # more validation rows than training rows
    trained = train(epochs=1, on=swapped)
    assert trained.curve[0].train_loss == pytest.approx(evaluate(trained.model, swapped.train, make_task(swapped, Loss())).loss, rel=1e-5)


def test_evaluating_leaves_every_generator_as_it_was(data: Data) -> None:
    model = nn.Sequential(nn.Linear(6, 3), AlwaysOn())
    before = torch.get_rng_state()
    score = evaluate(model, data.val, make_task(data, Loss()))
    assert score.random
    assert torch.equal(before, torch.get_rng_state())


class AlwaysOn(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        return F.dropout(inputs)


def test_dropout_that_is_live_in_eval_mode_is_told_but_ends_nothing(train: Any) -> None:
    curve = train(lambda: nn.Sequential(nn.Linear(6, 16), AlwaysOn(), nn.Linear(16, 3))).curve
    assert len(curve) == 4
    assert all(result.random_in_eval for result in curve)


class Deaf(nn.Sequential):
    def train(self, mode: bool = True) -> "Deaf":
        return super().train(False)


def test_dropout_that_train_does_not_reach_is_an_error(train: Any) -> None:
    with pytest.raises(StageFailure, match="sets a rate for 1, but a forward in training mode drew no random number") as end:
        train(lambda: Deaf(nn.Linear(6, 16), nn.Dropout(), nn.Linear(16, 3)))
    assert end.value.reason == "DropoutInactive"


def test_a_model_without_dropout_need_not_draw(train: Any) -> None:
    assert not train(lambda: nn.Linear(6, 3)).curve[0].random_in_eval


@pytest.mark.parametrize("name", ["AdamW", "Adam", "SGD", "RMSprop"])
def test_every_optimiser_learns(train: Any, name: str) -> None:
    curve = train(lambda: nn.Linear(6, 3), epochs=8, optimizer={"name": name, "learning_rate": 0.02}).curve
    assert curve[-1].train_loss < curve[0].train_loss
    assert curve[-1].val[MetricName.ACCURACY] > 1 / 3


def test_a_loss_that_is_not_finite_names_epoch_and_remedy(train: Any) -> None:
    with pytest.raises(StageFailure, match=r"became (nan|inf) in epoch \d+, batch \d+; lower .*learningRate \(now 100\)") as end:
        train(epochs=50, optimizer={"name": "SGD", "learning_rate": 100, "weight_decay": 100})
    assert end.value.exit_code == ExitCode.NON_FINITE_LOSS


def test_clipping_keeps_a_wild_training_finite(train: Any) -> None:
    curve = train(epochs=20, optimizer={"name": "SGD", "learning_rate": 1, "weight_decay": 0}, gradient_clip_norm=0.1).curve
    assert all(math.isfinite(result.train_loss_with_dropout) for result in curve)


def test_logits_of_another_shape_are_refused(train: Any) -> None:
    with pytest.raises(StageFailure, match=r"answers \[16, 4\] to 16 inputs; it must answer logits \[16, 3\]"):
        train(lambda: nn.Linear(6, 4))


def test_a_model_without_parameters_is_refused(train: Any) -> None:
    with pytest.raises(StageFailure, match="no parameters"):
        train(nn.Identity)


def test_batch_norm_never_sees_a_batch_of_one(train: Any, data: Data) -> None:
    odd = Data(Split(data.train.inputs[:33], data.train.targets[:33]), data.val, data.test, data.class_names)
    assert train(lambda: nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3)), on=odd).curve


@pytest.mark.parametrize(("rows", "size", "expected"), [
    (32, 16, [16, 16]), (33, 16, [16, 16]), (34, 16, [16, 16, 2]), (1, 16, [1]), (3, 1, [1] * 3),
])
def test_batches_hold_each_row_once_but_for_a_last_one(rows: int, size: int, expected: list[int]) -> None:
    parts = batches(rows, size, torch.Generator().manual_seed(0))
    assert [len(part) for part in parts] == expected
    assert torch.cat(parts).unique().numel() == sum(expected)
