"""The loss of each row, as it is reported: unweighted, without label smoothing. What is minimised adds those (`train.objective`)."""

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - as everyone writes it

from dropout_api.candidate import Task


def row_losses(task: Task, answers: Tensor, targets: Tensor) -> Tensor:
    """Loss of each row, [N]: of classes the cross-entropy in nats, of values the mean over a row's values in units of the training
    targets' deviation. `answers` [N, outputs], `targets` [N] of int64 or [N, values] of float."""
    if task.loss == "CrossEntropy":
        return F.cross_entropy(answers, targets, reduction="none")
    return value_losses(task, answers, targets).mean(1)


def value_losses(task: Task, answers: Tensor, targets: Tensor) -> Tensor:
    """Of values: the loss of each, [N, values]."""
    scale = torch.tensor(task.deviation, dtype=targets.dtype, device=targets.device)
    if task.loss == "Quantile":
        return _pinball(task, answers, targets / scale, scale)
    off = (answers - targets) / scale
    match task.loss:
        case "MAE":
            return off.abs()
        case "Huber":
            return F.huber_loss(off, torch.zeros_like(off), reduction="none")
        case _:
            return off.square()


def quantile_answers(task: Task, answers: Tensor) -> Tensor:
    """[N, values, quantiles] of a Quantile model's answers [N, values × quantiles]."""
    return answers.reshape(len(answers), task.values, len(task.quantiles))


def point_answers(task: Task, answers: Tensor) -> Tensor:
    """[N, values]: the answer itself, of quantiles the median."""
    return quantile_answers(task, answers)[..., task.quantiles.index(0.5)] if task.quantiles else answers


def _pinball(task: Task, answers: Tensor, targets: Tensor, scale: Tensor) -> Tensor:
    """Mean over the quantiles of Koenker and Bassett's check function (Econometrica 46, 1978)."""
    levels = torch.tensor(task.quantiles, dtype=targets.dtype, device=targets.device)
    off = targets.unsqueeze(-1) - quantile_answers(task, answers) / scale.unsqueeze(-1)
    return torch.maximum(levels * off, (levels - 1) * off).mean(-1)
