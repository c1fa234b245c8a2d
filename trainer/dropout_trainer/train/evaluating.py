"""A model's answers in eval mode, and what they are worth."""

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dropout_api.candidate import Task
from dropout_api.metrics import MetricName
from dropout_trainer.data import Split
from dropout_trainer.metrics.measure import measure
from dropout_trainer.train.modes import drawing

EVAL_BATCH = 512


@dataclass(frozen=True)
class Score:
    """A model's metrics on a split, in eval mode."""

    metrics: dict[MetricName, float]
    random: bool
    """Whether the model drew random numbers all the same: some of its dropout is live in eval mode."""

    @property
    def loss(self) -> float:
        return self.metrics[MetricName.LOSS]


def evaluate(model: nn.Module, split: Split, task: Task, names: Collection[MetricName] = (MetricName.LOSS,)) -> Score:
    """The score of `model`, which is left in eval mode; the global random generators are left as they were."""
    answers, random = answers_of(model, split)
    return Score(measure(task, names, answers, split.targets), random)


@torch.no_grad()
def answers_of(model: nn.Module, split: Split) -> tuple[Tensor, bool]:
    """The answers [N, outputs] of `model` in eval mode, in which it is left, on the CPU, and whether it drew random numbers."""
    model.eval()
    device = device_of(model)
    with drawing(restore=True) as draws:
        answers = torch.cat([model(inputs.to(device)).float().cpu() for inputs in torch.split(split.inputs, EVAL_BATCH)])
    return answers, draws.happened


def device_of(model: nn.Module) -> torch.device:
    """Where its parameters are; the CPU when it has none."""
    parameter: Tensor | None = next(model.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device
