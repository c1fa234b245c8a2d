"""What a model is worth to each class and to each segment, as tables for people."""

import math
from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor

from dropout_api.candidate import Task
from dropout_api.metrics import BY_CLASS, MetricName
from dropout_trainer.data import Split
from dropout_trainer.metrics import classes
from dropout_trainer.metrics.measure import measure

Cell = str | int | float | None
AVERAGE = "_macro"


@dataclass(frozen=True)
class Table:
    """Cells are None where a metric is not defined."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


def by_class(task: Task, answers: Tensor, targets: Tensor) -> Table:
    """A row for each class: its rows in `targets` [N], and each metric that one class has. `answers` are [N, outputs]."""
    names = task.class_names or [str(number) for number in range(task.outputs)]
    counts = torch.bincount(targets, minlength=task.outputs).tolist()
    values = [classes.by_class(metric, answers.double(), targets).tolist() for metric in BY_CLASS]  # once for all classes
    rows = [(name, counts[number], *(_cell(column[number]) for column in values)) for number, name in enumerate(names)]
    return Table(("class", "rows", *(metric.removesuffix(AVERAGE) for metric in BY_CLASS)), tuple(rows))


def by_segment(task: Task, names: Collection[MetricName], answers: Tensor, split: Split) -> Table:
    """A row for each segment that `split` has rows of: how many, and each metric of `names`."""
    assert split.segments is not None
    rows = []
    for number, name in enumerate(task.segment_names):
        chosen = split.segments == number
        if count := int(chosen.sum()):
            found = measure(task, names, answers[chosen], split.targets[chosen])
            rows.append((name, count, *(_cell(found[metric]) for metric in names)))
    return Table(("segment", "rows", *names), tuple(rows))


def _cell(value: float) -> float | None:
    return value if math.isfinite(value) else None
