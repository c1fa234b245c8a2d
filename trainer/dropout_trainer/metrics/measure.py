"""Metrics by name, from a model's answers to a whole split: the same numbers in the training loop and in the verifier."""

from collections.abc import Collection

from torch import Tensor

from dropout_api.candidate import Task
from dropout_api.metrics import GAP, OF_TASK, MetricName, TaskKind
from dropout_api.names import ExitCode
from dropout_api.training import TrainingSpec
from dropout_trainer.errors import StageFailure
from dropout_trainer.metrics import classes, values
from dropout_trainer.metrics.losses import row_losses


def usual(task: Task) -> tuple[MetricName, ...]:
    """What is always measured. Needs no import of torchmetrics."""
    return (MetricName.LOSS, MetricName.ACCURACY) if task.kind is TaskKind.CLASSIFICATION else (MetricName.LOSS, MetricName.MAE)


def names_for(task: Task, spec: TrainingSpec) -> tuple[MetricName, ...]:
    """What the loop measures after each epoch: the usual, `spec.metrics` and what early stopping monitors, each once.

    Raises StageFailure SpecInvalid, naming the field, for a metric that the task does not have.
    """
    asked = {f"spec.training.metrics[{number}]": name for number, name in enumerate(spec.metrics)}
    if spec.early_stopping and (monitored := spec.early_stopping.monitor.removeprefix("val_")) != GAP:
        asked["spec.training.earlyStopping.monitor"] = MetricName(monitored)
    for field, name in asked.items():
        if problem := not_of_task(task, [name]):
            raise StageFailure("SpecInvalid", f"{field}: {problem}", ExitCode.SPEC_INVALID)
    return tuple(dict.fromkeys((*usual(task), *asked.values())))


def not_of_task(task: Task, names: Collection[MetricName]) -> str | None:
    """Why the first of `names` that the task does not have cannot be measured, with the remedy; None when it has them all."""
    for name in names:
        if name not in OF_TASK[task.kind]:
            return f"{name} does not go with {task.kind}; use one of {', '.join(OF_TASK[task.kind])}"
        if name is MetricName.INTERVAL_COVERAGE and len(task.quantiles) <= 1:
            return f"{name} needs an interval; set spec.training.loss to Quantile with two quantiles or more beside 0.5"
        if classes.TOP_K.get(name, 0) > task.outputs:
            return f"{name} needs {classes.TOP_K[name]} classes, but there are {task.outputs}; use accuracy"
    return None


def measure(task: Task, names: Collection[MetricName], answers: Tensor, targets: Tensor) -> dict[MetricName, float]:
    """The value of each metric of `names`, for finite `answers` [N, outputs] and `targets` [N] or [N, values], both on the CPU, N >= 1.

    `names` must be of the task (see `not_of_task`). NaN where a metric is not defined: an area under the ROC curve where all rows are
    of one class, R² of a single row. Macro averages are over the classes that have rows.
    """
    answers = answers.double()
    if task.kind is TaskKind.REGRESSION:
        targets = targets.double()
    return {name: _value(task, name, answers, targets) for name in names}


def measure_class(task: Task, name: MetricName, class_index: int, answers: Tensor, targets: Tensor) -> float:
    """The value of one class, for a metric of `dropout_api.metrics.BY_CLASS`; arguments as for `measure`.

    NaN when the class has no rows in `targets`, and of the area under the ROC curve when there are none of others.
    """
    return float(classes.by_class(name, answers.double(), targets)[class_index])


def _value(task: Task, name: MetricName, answers: Tensor, targets: Tensor) -> float:
    if name is MetricName.LOSS:
        return float(row_losses(task, answers, targets).mean())
    if task.kind is TaskKind.CLASSIFICATION:
        return classes.overall(name, answers, targets)
    return values.overall(task, name, answers, targets)
