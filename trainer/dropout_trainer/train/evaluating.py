"""A model's answers in eval mode, and what they are worth."""

from collections.abc import Collection
from dataclasses import dataclass
from itertools import zip_longest

import torch
from torch import Tensor, nn

from dropout_api.candidate import Task
from dropout_api.metrics import MetricName
from dropout_trainer.data import Split
from dropout_trainer.metrics.measure import measure
from dropout_trainer.train.distributed import ALONE, World
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


def evaluate(
    model: nn.Module, split: Split, task: Task, names: Collection[MetricName] = (MetricName.LOSS,), world: World = ALONE,
) -> Score:
    """The score of `model`, which is left in eval mode; the global random generators are left as they were.

    Ranks share the batches among them, each row once; rank 0 puts the answers together and measures, so that all have the very score that
    one process would have.
    """
    parts, score = world.gather(_answers(model, split, world)), None
    if world.leads:
        rounds = zip_longest(*(part for part, _ in parts))
        answers = torch.cat([batch for dealt in rounds for batch in dealt if batch is not None])
        score = Score(measure(task, names, answers, split.targets), any(random for _, random in parts))
    return world.broadcast(score)


def answers_of(model: nn.Module, split: Split) -> tuple[Tensor, bool]:
    """The answers [N, outputs] of `model` in eval mode, in which it is left, on the CPU, and whether it drew random numbers."""
    answers, random = _answers(model, split, ALONE)
    return torch.cat(answers), random


@torch.no_grad()
def _answers(model: nn.Module, split: Split, world: World) -> tuple[list[Tensor], bool]:
    """To every batch that falls to this rank; they are dealt out in turn."""
    model.eval()
    device = device_of(model)
    batches = torch.split(split.inputs, EVAL_BATCH)[world.rank :: world.size]
    with drawing(restore=True) as draws:
        answers = [model(inputs.to(device)).float().cpu() for inputs in batches]
    return answers, draws.happened


def device_of(model: nn.Module) -> torch.device:
    """Where its parameters are; the CPU when it has none."""
    parameter: Tensor | None = next(model.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device
