"""Losses of classes and of values, with weights, are what their formulas say; what does not fit the targets is refused."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from dropout_api.metrics import MetricName
from dropout_api.training import Loss
from dropout_trainer.data import Data, Split
from dropout_trainer.errors import StageFailure
from dropout_trainer.metrics.losses import point_answers, row_losses
from dropout_trainer.train.objective import balanced, make_objective, make_task

ANSWERS, TARGETS = torch.tensor([[1.0, 4.0], [3.0, 0.0]]), torch.tensor([[2.0, 2.0], [3.0, 4.0]])


def values(rows: int = 120) -> Data:
    """Two values that hang on six features."""
    source = torch.Generator().manual_seed(0)
    inputs = torch.randn(rows, 6, generator=source)
    noise = torch.randn(rows, 2, generator=source)
    targets = 100 * inputs[:, :2] + 500 + 10 * noise
    cuts = [rows // 2, rows // 4, rows - rows // 2 - rows // 4]
    return Data(*(Split(*pair) for pair in zip(torch.split(inputs, cuts), torch.split(targets, cuts), strict=True)))


def on(loss: Loss, deviation: list[float]) -> Any:
    task = make_task(values(), loss)
    return make_objective(task.model_copy(update={"deviation": deviation}), values(), loss)


@pytest.mark.parametrize(("name", "expected"), [
    ("MSE", (0.25 + 1 + 0 + 4) / 4), ("MAE", (0.5 + 1 + 0 + 2) / 4), ("Huber", (0.125 + 0.5 + 0 + 1.5) / 4),
])
def test_losses_of_values_are_in_units_of_the_targets_deviation(name: Any, expected: float) -> None:
    assert on(Loss(name=name), [2.0, 2.0])(ANSWERS, TARGETS).item() == pytest.approx(expected)


def test_the_quantile_loss_is_the_pinball_function() -> None:
    objective = on(Loss(name="Quantile", quantiles=[0.1, 0.5]), [1.0, 1.0])
    answers = torch.tensor([[1.0, 2.0, 5.0, 3.0]])  # 0.1 and 0.5 of the first value, then of the second
    targets = torch.tensor([[2.0, 4.0]])
    expected = (0.1 * 1 + 0.5 * 0 + 0.9 * 1 + 0.5 * 1) / 4
    assert objective(answers, targets).item() == pytest.approx(expected)
    assert point_answers(objective.task, answers).tolist() == [[2.0, 3.0]]


@pytest.mark.parametrize("quantile", [0.1, 0.5, 0.9])
def test_the_quantile_loss_is_least_at_the_quantile(quantile: float) -> None:
    objective = on(Loss(name="Quantile", quantiles=sorted({quantile, 0.5})), [1.0, 1.0])
    targets = torch.linspace(0, 1, 1001).reshape(-1, 1).repeat(1, 2)
    place = objective.task.quantiles.index(quantile)

    def loss(guess: float) -> float:
        answers = torch.full((1001, objective.task.outputs), 0.5)
        answers[:, place::len(objective.task.quantiles)] = guess
        return float(row_losses(objective.task, answers, targets).mean())

    assert min((step / 100 for step in range(101)), key=loss) == pytest.approx(quantile)


def test_balanced_classes_weigh_the_same_in_sum() -> None:
    targets = torch.tensor([0] * 8 + [1] * 2 + [3] * 6)
    weights = balanced(targets, 4)
    sums = [float(weights[targets[targets == number]].sum()) for number in range(4)]
    assert sums == pytest.approx([16 / 3, 16 / 3, 0, 16 / 3])


def test_class_weights_and_smoothing_are_cross_entropys_own(data: Data) -> None:
    loss = Loss(weights=[1, 2, 3], label_smoothing=0.1)
    logits: Tensor = torch.randn(40, 3, generator=torch.Generator().manual_seed(1))
    targets = torch.arange(40) % 3
    expected = F.cross_entropy(logits, targets, torch.tensor([1.0, 2.0, 3.0]), label_smoothing=0.1)
    assert make_objective(make_task(data, loss), data, loss)(logits, targets) == expected


def test_balanced_weights_raise_the_recall_of_a_rare_class(train: Any, data: Data) -> None:
    classes = [torch.nonzero(data.train.targets == number).flatten() for number in range(3)]
    rare = data.train.take(torch.cat([*classes[:2], classes[2][:3]]))

    def missed(**loss: Any) -> float:
        model = train(lambda: nn.Linear(6, 3), on=replace(data, train=rare), epochs=30, optimizer={"learning_rate": 0.02}, loss=loss).model
        return float((model(data.val.inputs).argmax(1) != 2)[data.val.targets == 2].double().mean())

    assert missed(class_weights="Balanced") < missed()


def test_a_regression_learns_in_the_targets_own_units(train: Any) -> None:
    curve = train(lambda: nn.Linear(6, 2), on=values(), epochs=60, optimizer={"learning_rate": 10, "weight_decay": 0}).curve
    assert curve[-1].val[MetricName.MAE] < 40 < curve[0].val[MetricName.MAE]
    assert curve[-1].val_loss < 1  # of the targets' variance


@pytest.mark.parametrize(("loss", "on", "message"), [
    (Loss(name="MSE"), "classes", r"spec.training.loss.name is MSE, but the targets are class numbers; use CrossEntropy"),
    (Loss(name="CrossEntropy"), "values", r"is CrossEntropy, but the targets are float32 values; use one of MSE, MAE"),
    (Loss(weights=[1, 2]), "classes", r"spec.training.loss.weights has 2 weights, but the data have 3 classes"),
])
def test_a_loss_that_does_not_fit_the_targets_is_refused(loss: Loss, on: str, message: str, data: Data) -> None:
    given = data if on == "classes" else values()
    with pytest.raises(StageFailure, match=message):
        make_objective(make_task(given, loss), given, loss)
