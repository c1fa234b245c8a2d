"""Classes without rows are left out of averages, and what has no value is NaN: never 0, never a warning."""

import math

import pytest
import torch

from dropout_api.candidate import Task
from dropout_api.metrics import BY_CLASS, CLASSIFICATION, MetricName
from dropout_trainer.metrics.measure import measure, measure_class

THREE = Task(outputs=3)
ONE_VALUE = Task(kind="Regression", outputs=1, loss="MSE", deviation=[1.0])
LOGITS = torch.tensor([[3.0, 0, 0], [-0.5, 0, 3], [0, 3, 0.1], [0, 3, 0.2]])
TARGETS = torch.tensor([0, 0, 1, 1])
"""No row is of class 2, and one row is taken for it."""
IN_THREE = [name for name in CLASSIFICATION if name is not MetricName.TOP_5_ACCURACY]


@pytest.mark.parametrize(("name", "value"), [
    (MetricName.RECALL_MACRO, 0.75), (MetricName.FALSE_NEGATIVE_RATE_MACRO, 0.25), (MetricName.PRECISION_MACRO, 1.0),
    (MetricName.F1_MACRO, (2 / 3 + 1) / 2), (MetricName.F1_WEIGHTED, (2 / 3 + 1) / 2), (MetricName.ROC_AUC_MACRO, 0.75),
    (MetricName.ROC_AUC_WEIGHTED, 0.75),
])
def test_an_average_is_over_the_classes_that_have_rows(name: MetricName, value: float) -> None:
    assert measure(THREE, [name], LOGITS, TARGETS)[name] == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize("name", BY_CLASS)
def test_a_class_without_rows_has_no_value(name: MetricName) -> None:
    assert math.isnan(measure_class(THREE, name, 2, LOGITS, TARGETS))
    assert math.isfinite(measure_class(THREE, name, 1, LOGITS, TARGETS))


def test_where_all_rows_are_of_one_class_only_the_area_has_no_value() -> None:
    found = measure(THREE, IN_THREE, LOGITS[:2], TARGETS[:2])

    undefined = {name for name, value in found.items() if math.isnan(value)}
    assert undefined == {MetricName.ROC_AUC_MACRO, MetricName.ROC_AUC_WEIGHTED}
    assert (found[MetricName.RECALL_MACRO], found[MetricName.PRECISION_MACRO]) == (0.5, 1.0)


def test_a_class_that_is_never_answered_has_precision_zero() -> None:
    logits = torch.tensor([[3.0, 0, 0], [3, 0, 0]])
    assert measure_class(THREE, MetricName.PRECISION_MACRO, 1, logits, torch.tensor([0, 1])) == 0


def test_mape_of_a_target_of_zero_is_huge() -> None:
    answers, targets = torch.tensor([[1.0], [0.0]]), torch.tensor([[0.0], [0.0]])
    assert measure(ONE_VALUE, [MetricName.MAPE], answers, targets)[MetricName.MAPE] == pytest.approx(0.5 / 1.17e-6)


def test_r2_of_one_row_has_no_value_and_of_equal_targets_says_whether_they_are_met() -> None:
    name, same = MetricName.R2, torch.full((3, 1), 7.0)
    assert math.isnan(measure(ONE_VALUE, [name], torch.ones(1, 1), torch.ones(1, 1))[name])
    assert measure(ONE_VALUE, [name], same, same)[name] == 1
    assert measure(ONE_VALUE, [name], same + 1, same)[name] == 0


def test_an_interval_turned_round_covers_nothing() -> None:
    task = Task(kind="Regression", outputs=3, loss="Quantile", quantiles=[0.1, 0.5, 0.9], deviation=[1.0])
    answers = torch.tensor([[0.0, 1, 2], [2, 1, 0], [1, 1, 1]])
    name = MetricName.INTERVAL_COVERAGE

    assert measure(task, [name], answers, torch.ones(3, 1))[name] == pytest.approx(2 / 3), "its ends belong to it"
