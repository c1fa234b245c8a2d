"""Metrics by name, from a model's answers to a whole split."""

from collections.abc import Collection

from torch import Tensor

from dropout_api.candidate import Task
from dropout_api.metrics import MetricName, TaskKind
from dropout_api.training import TrainingSpec
from dropout_trainer.metrics.losses import row_losses


def usual(task: Task) -> tuple[MetricName, ...]:
    """What is always measured."""
    return (MetricName.LOSS, MetricName.ACCURACY) if task.kind is TaskKind.CLASSIFICATION else (MetricName.LOSS, MetricName.MAE)


def measure(task: Task, names: Collection[MetricName], answers: Tensor, targets: Tensor) -> dict[MetricName, float]:
    """The value of each metric of `names`, for `answers` [N, outputs] and `targets` [N] or [N, values], both on the CPU."""
    result: dict[MetricName, float] = {}
    for name in names:
        match name:
            case MetricName.LOSS:
                result[name] = float(row_losses(task, answers.double(), targets).mean())
            case MetricName.ACCURACY:
                result[name] = float((answers.argmax(1) == targets).double().mean())
            case MetricName.MAE:
                result[name] = float((answers - targets).abs().double().mean())
            case _:
                raise NotImplementedError(name)
    return result


def names_for(task: Task, spec: TrainingSpec) -> tuple[MetricName, ...]:
    """What is measured of the validation set after each epoch."""
    return usual(task)
