"""Every metric is what scikit-learn, or a sum by hand, makes of the same answers."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from sklearn import metrics as theirs
from torch import Tensor

from dropout_api.candidate import Task
from dropout_api.metrics import BY_CLASS, CLASSIFICATION, REGRESSION, MetricName
from dropout_trainer.metrics.measure import measure, measure_class

CLASSES, ROWS = 6, 300
OF_CLASSES, OF_VALUES = Task(outputs=CLASSES), Task(kind="Regression", outputs=2, loss="MSE", deviation=[1.0, 50.0])
QUANTILES = Task(kind="Regression", outputs=6, loss="Quantile", quantiles=[0.05, 0.5, 0.9], deviation=[1.0, 50.0])


def classified(classes: int = CLASSES, rows: int = ROWS) -> tuple[Tensor, Tensor]:
    """Logits that are often right, ties among them, and targets of unequal frequency."""
    source = torch.Generator().manual_seed(3)
    targets = torch.multinomial(torch.arange(1.0, classes + 1), rows, replacement=True, generator=source)
    logits = torch.randn(rows, classes, generator=source) + 1.5 * torch.nn.functional.one_hot(targets, classes)
    return (logits * 4).round() / 4, targets


def forecast(scale: float = 1.0, offset: float = 0.0) -> tuple[Tensor, Tensor]:
    source = torch.Generator().manual_seed(4)
    units = torch.tensor([1.0, 50.0]) * scale
    targets = torch.randn(ROWS, 2, generator=source) * units + offset
    return targets + 0.5 * torch.randn(ROWS, 2, generator=source) * units, targets


def of_classes(name: MetricName, logits: Tensor, targets: Tensor) -> float:
    y, guess, scores = targets.numpy(), logits.argmax(1).numpy(), logits.double().softmax(1).numpy()
    average = name.rpartition("_")[2]
    labels = np.unique(y)
    match name:
        case MetricName.ACCURACY:
            return theirs.accuracy_score(y, guess)
        case MetricName.TOP_2_ACCURACY | MetricName.TOP_3_ACCURACY | MetricName.TOP_5_ACCURACY:
            return theirs.top_k_accuracy_score(y, scores, k=int(name[4]), labels=range(logits.shape[1]))
        case MetricName.F1_MICRO | MetricName.F1_MACRO | MetricName.F1_WEIGHTED:
            return theirs.f1_score(y, guess, average=average, labels=labels)
        case MetricName.PRECISION_MACRO:
            return theirs.precision_score(y, guess, average=average, labels=labels, zero_division=0)
        case MetricName.RECALL_MACRO:
            return theirs.balanced_accuracy_score(y, guess)
        case MetricName.FALSE_NEGATIVE_RATE_MACRO:
            return 1 - theirs.balanced_accuracy_score(y, guess)
        case _:
            return theirs.roc_auc_score(y, scores, average=average, multi_class="ovr")


def of_values(name: MetricName, answers: Tensor, targets: Tensor) -> float:
    y, guess = targets.double().numpy(), answers.double().numpy()
    match name:
        case MetricName.MAE:
            return theirs.mean_absolute_error(y, guess)
        case MetricName.RMSE:
            return theirs.root_mean_squared_error(y, guess)
        case MetricName.MAPE:
            return theirs.mean_absolute_percentage_error(y, guess)
        case _:
            return theirs.r2_score(y, guess)


def without_ties(logits: Tensor) -> Tensor:
    """scikit-learn's top k takes the later of two equal classes, torch's an unspecified one."""
    return logits + torch.arange(logits.shape[1]) * 1e-4


@pytest.mark.parametrize("name", CLASSIFICATION)
def test_of_many_classes(name: MetricName) -> None:
    logits, targets = classified()
    logits = without_ties(logits) if name.startswith("top_") else logits

    assert measure(OF_CLASSES, [name], logits, targets)[name] == pytest.approx(of_classes(name, logits, targets), abs=1e-6)


@pytest.mark.parametrize("name", ["roc_auc_macro", "f1_macro", "recall_macro", "f1_weighted"])
def test_of_two_classes(name: str) -> None:
    logits, targets = classified(classes=2)
    metric = MetricName(name)
    positive = logits.double().softmax(1)[:, 1].numpy()
    wanted = theirs.roc_auc_score(targets.numpy(), positive) if "roc" in name else of_classes(metric, logits, targets)

    assert measure(Task(outputs=2), [metric], logits, targets)[metric] == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("name", BY_CLASS)
def test_of_one_class(name: MetricName) -> None:
    logits, targets = classified()
    y, guess, scores = targets.numpy(), logits.argmax(1).numpy(), logits.double().softmax(1).numpy()
    for number in range(CLASSES):
        mine = y == number, guess == number
        wanted = {
            MetricName.F1_MACRO: theirs.f1_score(*mine), MetricName.PRECISION_MACRO: theirs.precision_score(*mine),
            MetricName.RECALL_MACRO: theirs.recall_score(*mine),
            MetricName.FALSE_NEGATIVE_RATE_MACRO: 1 - theirs.recall_score(*mine),
            MetricName.ROC_AUC_MACRO: theirs.roc_auc_score(y == number, scores[:, number]),
        }
        assert measure_class(OF_CLASSES, name, number, logits, targets) == pytest.approx(wanted[name], abs=1e-6)


@pytest.mark.parametrize("name", [name for name in REGRESSION if name is not MetricName.INTERVAL_COVERAGE])
@pytest.mark.parametrize(("scale", "offset"), [(1.0, 0.0), (1e-4, 0.0), (1e4, 0.0), (1.0, 1000.0)])
def test_of_values_whatever_their_unit(name: MetricName, scale: float, offset: float) -> None:
    answers, targets = forecast(scale, offset)
    if name is MetricName.MAPE:
        targets = targets.abs() + 1e-5  # nearer to 0 the two take other values for it

    wanted = of_values(name, answers, targets)
    assert measure(OF_VALUES, [name], answers, targets)[name] == pytest.approx(wanted, rel=1e-5), "a small unit is no constant target"


def test_of_quantiles_by_their_median_but_for_the_coverage() -> None:
    median, targets = forecast()
    answers = torch.stack([median - 0.3, median, median + torch.tensor([0.4, 20.0])], dim=2).reshape(ROWS, 6)

    found = measure(QUANTILES, [MetricName.LOSS, *REGRESSION], answers, targets)

    y, units = targets.double().numpy(), np.array([1.0, 50.0])
    pinball = [
        theirs.mean_pinball_loss(y / units, answers.double().numpy().reshape(ROWS, 2, 3)[:, :, place] / units, alpha=level)
        for place, level in enumerate(QUANTILES.quantiles)]
    inside = (y >= median.double().numpy() - 0.3) & (y <= median.double().numpy() + np.array([0.4, 20.0]))
    assert found[MetricName.LOSS] == pytest.approx(np.mean(pinball), rel=1e-5)
    assert found[MetricName.INTERVAL_COVERAGE] == pytest.approx(inside.mean())
    for name in (MetricName.MAE, MetricName.RMSE, MetricName.R2):
        assert found[name] == pytest.approx(of_values(name, median, targets), rel=1e-5)


def test_by_hand() -> None:
    logits = torch.tensor([[3.0, 2, 0], [0, 3, 2], [2, 3, 0], [0, 2, 3.0]])
    targets = torch.tensor([0, 1, 0, 1])

    names = [MetricName.ACCURACY, MetricName.TOP_2_ACCURACY, MetricName.RECALL_MACRO, MetricName.PRECISION_MACRO]
    found = measure(Task(outputs=3), names, logits, targets)

    assert found == {"accuracy": 0.5, "top_2_accuracy": 1.0, "recall_macro": 0.5, "precision_macro": 0.75}


def test_nine_of_ten_is_not_less_than_a_bar_of_nine_tenths() -> None:
    targets = torch.tensor([0] * 10 + [1] * 10)
    logits = torch.nn.functional.one_hot(torch.tensor([0] * 9 + [1] * 10 + [0]), 2).float()

    found = measure(Task(outputs=2), [MetricName.RECALL_MACRO, MetricName.FALSE_NEGATIVE_RATE_MACRO, MetricName.F1_MICRO], logits, targets)

    assert found == {"recall_macro": 0.9, "false_negative_rate_macro": 0.1, "f1_micro": 0.9}


@pytest.fixture
def _deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("_deterministic")
def test_and_a_thousand_classes_need_no_table_of_their_squares_for_each_row() -> None:
    logits, targets = classified(classes=1000, rows=2000)  # such a table would have 16 GB

    found = measure(Task(outputs=1000), [MetricName.RECALL_MACRO], logits, targets)

    right = (logits.argmax(1) == targets).double()
    assert found[MetricName.RECALL_MACRO] == pytest.approx(np.mean([right[targets == number].mean() for number in targets.unique()]))
    assert torch.are_deterministic_algorithms_enabled()
