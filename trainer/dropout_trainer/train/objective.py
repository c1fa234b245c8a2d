"""What is minimised: the task's loss, with class weights and label smoothing where the spec asks for them."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - as everyone writes it

from dropout_api.candidate import Task
from dropout_api.metrics import TaskKind
from dropout_api.names import ExitCode
from dropout_api.training import Loss
from dropout_trainer.data import Data
from dropout_trainer.errors import StageFailure
from dropout_trainer.metrics.losses import value_losses

OF_VALUES = ("MSE", "MAE", "Huber", "Quantile")


@dataclass(frozen=True)
class Objective:
    """The loss of a batch, a scalar; `weights` [classes] are those of the classes, None when each row counts the same."""

    task: Task
    weights: Tensor | None = None
    smoothing: float = 0.0

    def __call__(self, answers: Tensor, targets: Tensor, whole: Tensor | None = None) -> Tensor:
        """`answers` [N, outputs] in any float type, `targets` [N] or [N, values].

        With `whole`, the targets of a batch of which these rows are a part, it is what they add to that batch's loss: the parts' sum
        is the loss of the whole, whatever their sizes and the weights of their classes.
        """
        answers = answers.float()
        if whole is not None:
            return self._part(answers, targets, whole)
        if self.task.loss == "CrossEntropy":
            return F.cross_entropy(answers, targets, self.weights, label_smoothing=self.smoothing)
        return value_losses(self.task, answers, targets).mean()

    def _part(self, answers: Tensor, targets: Tensor, whole: Tensor) -> Tensor:
        if self.task.loss == "CrossEntropy":
            total = F.cross_entropy(answers, targets, self.weights, reduction="sum", label_smoothing=self.smoothing)
            return total / (len(whole) if self.weights is None else self.weights[whole].sum())
        return value_losses(self.task, answers, targets).sum() / whole.numel()

    def to(self, device: torch.device) -> "Objective":
        return Objective(self.task, None if self.weights is None else self.weights.to(device), self.smoothing)


def make_task(data: Data, loss: Loss) -> Task:
    """What a model for `data` must answer. Raises StageFailure when the loss does not go with the targets."""
    if data.kind is TaskKind.CLASSIFICATION:
        _require(loss.name in (None, "CrossEntropy"), loss, "targets are class numbers; use CrossEntropy, or float32 targets [N, values]")
        return Task(outputs=data.num_classes, class_names=list(data.class_names), segment_names=list(data.segment_names))
    name = loss.name or "MSE"
    _require(name in OF_VALUES, loss, f"targets are float32 values; use one of {', '.join(OF_VALUES)}, or int64 class numbers")
    deviation = data.train.targets.double().std(0)
    deviation = torch.where(deviation > 0, deviation, 1)
    return Task(
        kind=TaskKind.REGRESSION, outputs=data.train.targets.shape[1] * max(1, len(loss.quantiles)), loss=name,
        quantiles=loss.quantiles, deviation=deviation.tolist(), segment_names=list(data.segment_names),
    )


def make_objective(task: Task, data: Data, loss: Loss) -> Objective:
    """Raises StageFailure when `loss.weights` are not as many as there are classes."""
    if loss.weights:
        wanted = f"has {len(loss.weights)} weights, but the data have {task.outputs} classes"
        if len(loss.weights) != task.outputs:
            raise StageFailure("SpecInvalid", f"spec.training.loss.weights {wanted}", ExitCode.SPEC_INVALID)
        return Objective(task, torch.tensor(loss.weights), loss.label_smoothing)
    if loss.class_weights == "Balanced":
        return Objective(task, balanced(data.train.targets, task.outputs), loss.label_smoothing)
    return Objective(task, None, loss.label_smoothing)


def balanced(targets: Tensor, classes: int) -> Tensor:
    """Weights [classes] under which every class of `targets` weighs the same in sum, with mean 1 over the rows; 0 for a class that has none
    (King, Zeng: Logistic Regression in Rare Events Data, 2001)."""
    counts = torch.bincount(targets, minlength=classes).float()
    return torch.where(counts > 0, len(targets) / (counts.clamp(min=1) * (counts > 0).sum()), 0)


def _require(fits: bool, loss: Loss, remedy: str) -> None:
    if not fits:
        raise StageFailure("SpecInvalid", f"spec.training.loss.name is {loss.name}, but the {remedy}", ExitCode.SPEC_INVALID)
