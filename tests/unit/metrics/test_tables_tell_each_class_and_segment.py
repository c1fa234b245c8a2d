"""A table has a row for each class and each segment, with counts and metrics of those rows alone, and nothing where one is not defined."""

import pytest
import torch
from torch import Tensor

from dropout_api.candidate import Task
from dropout_api.metrics import BY_CLASS, MetricName
from dropout_trainer.data import Split
from dropout_trainer.metrics import classes
from dropout_trainer.metrics.tables import by_class, by_segment

TASK = Task(outputs=3, class_names=["cat", "dog", "owl"], segment_names=["day", "night", "never"])
ANSWERS = torch.tensor([[9.0, 0, 0], [0, 9, 0], [9, 0, 0], [0, 9, 0]])  # cat, dog, cat, dog
TARGETS = torch.tensor([0, 0, 1, 1])
SPLIT = Split(torch.zeros(4, 1), TARGETS, torch.tensor([0, 0, 0, 1]))


def test_a_row_for_each_class() -> None:
    table = by_class(TASK, ANSWERS, TARGETS)
    rows = {row[0]: dict(zip(table.columns, row, strict=True)) for row in table.rows}
    assert (rows["cat"]["rows"], rows["cat"]["recall"], rows["cat"]["precision"], rows["cat"]["false_negative_rate"]) == (2, 0.5, 0.5, 0.5)
    assert (rows["owl"]["rows"], rows["owl"]["recall"]) == (0, None)


def test_a_row_for_each_segment_that_is_there() -> None:
    table = by_segment(TASK, [MetricName.ACCURACY], ANSWERS, SPLIT)
    assert table.columns == ("segment", "rows", "accuracy")
    assert table.rows == (("day", 3, pytest.approx(1 / 3)), ("night", 1, 1.0))


def test_each_metric_is_measured_once_for_all_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once for each class, the areas under the ROC curves of 100 classes took 40 s."""
    asked = []
    measured = classes.by_class

    def counted(name: MetricName, answers: Tensor, targets: Tensor) -> Tensor:
        asked.append(name)
        return measured(name, answers, targets)

    monkeypatch.setattr(classes, "by_class", counted)
    by_class(TASK, ANSWERS, TARGETS)
    assert sorted(asked) == sorted(BY_CLASS)
