"""The training loop, top to bottom: a generator of epoch results. Whatever has a side effect consumes that stream.

The gap is taken between losses that are both measured in eval mode: the loss that is minimised has dropout in it, so the gap to it
would understate overfitting.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from dropout_api.metrics import MetricName
from dropout_api.names import ExitCode, Metric
from dropout_api.spec import Augmentation
from dropout_api.training import TrainingSpec
from dropout_trainer.data import Data
from dropout_trainer.dropout.plan import AppliedPlan
from dropout_trainer.errors import StageFailure
from dropout_trainer.metrics.measure import names_for
from dropout_trainer.train.augment import augment
from dropout_trainer.train.distributed import ALONE, World, unsynchronised
from dropout_trainer.train.evaluating import device_of, evaluate
from dropout_trainer.train.losses import Losses
from dropout_trainer.train.modes import drawing, require_active
from dropout_trainer.train.objective import Objective
from dropout_trainer.train.optimizers import LearningRate, freeze, make_optimizer
from dropout_trainer.train.precision import Step
from dropout_trainer.train.seeds import generator
from dropout_trainer.train.state import Captured, State
from dropout_trainer.train.stopping import Best


@dataclass(frozen=True)
class Training:
    """All that a training is made of; `model` is on its device and has its dropout."""

    model: nn.Module
    data: Data
    objective: Objective
    plan: AppliedPlan
    spec: TrainingSpec
    seeds: Mapping[str, int]
    augmentation: tuple[Augmentation, ...] = ()
    world: World = ALONE

    def batches(self, order: torch.Generator | None = None) -> list[Tensor]:
        """Row numbers of each batch of an epoch, of all ranks together."""
        return batches(len(self.data.train), self.spec.batch_size, order, self.world.size)

    @property
    def steps(self) -> int:
        """Optimiser steps of an epoch."""
        return math.ceil(len(self.batches()) / self.spec.gradient_accumulation)


@dataclass(frozen=True)
class EpochResult:
    """What one epoch came to. Losses without a mode in their name are measured in eval mode."""

    epoch: int
    epochs: int
    train_loss_with_dropout: float
    train_loss: float
    val: Mapping[MetricName, float]
    """Metrics of the validation set; `loss` is always among them."""
    learning_rate: float
    """Of the epoch's last step."""
    seconds: float
    random_in_eval: bool = False
    kept: bool = True
    """Whether the model that training ends with is, so far, this epoch's."""

    @property
    def val_loss(self) -> float:
        return self.val[MetricName.LOSS]

    @property
    def val_gap(self) -> float:
        return self.val_loss - self.train_loss

    def metrics(self) -> dict[str, float]:
        """By MLflow metric name; without the time, which is no property of the model."""
        return {
            Metric.TRAIN_LOSS.value: self.train_loss, Metric.VAL_GAP.value: self.val_gap,
            Metric.DROPOUT_LOSS.value: self.train_loss_with_dropout, Metric.LEARNING_RATE.value: self.learning_rate,
            **{f"val_{name}": value for name, value in self.val.items()},
        }

    def __str__(self) -> str:
        others = "".join(f"  {name} {value:.4g}" for name, value in self.val.items() if name is not MetricName.LOSS)
        losses = f"train {self.train_loss:.4f}  val {self.val_loss:.4f}  gap {self.val_gap:+.4f}"
        return f"epoch {self.epoch}/{self.epochs}  {losses}{others}  {self.seconds:.1f}s"


def fit(
    training: Training, clock: Callable[[], float] = time.monotonic, resume_from: Captured | None = None,
    between_steps: Callable[[State], None] = lambda state: None,
) -> Iterator[EpochResult]:
    """Trains the model in place and yields the result of each epoch; from `resume_from` on where there is one, to the bit as if it had
    never stopped.

    `between_steps` is called after each optimiser step, and again once an epoch's result has been taken: there the state can be copied.
    Once the stream has ended the model has the last rates of its plan and, with early stopping, the weights of its best epoch. Raises
    StageFailure when a loss is not finite, when the model answers another shape than [N, outputs], when its dropout is off, or when the
    spec does not fit the model.

    Of several ranks each takes its part of every batch; gradients are those of the whole batch, and results are the same on all ranks.
    """
    model, data, spec, plan, task = training.model, training.data, training.spec, training.plan, training.objective.task
    world, accumulation, steps_per_epoch = training.world, training.spec.gradient_accumulation, training.steps
    device, names = device_of(model), names_for(task, spec)
    order, sample, noise = (generator(training.seeds, stream) for stream in ("shuffle", "sample", "augment"))
    train_sample = data.train.take(torch.randperm(len(data.train), generator=sample)[: len(data.val)])
    frozen_norms = freeze(model, spec)
    optimizer = make_optimizer(model, spec.optimizer)
    step, losses = Step(optimizer, spec.precision, device, spec.gradient_clip_norm), Losses(spec, device, world)
    objective, forward = training.objective.to(device), world.parallel(compiled(model) if spec.compile else model)
    rate = LearningRate(optimizer, spec.scheduler, spec.epochs * steps_per_epoch, steps_per_epoch)
    best = Best(spec.early_stopping) if spec.early_stopping else None
    state = State(model, plan, optimizer, step, losses, order, noise, best, spec.epochs, clock)
    if resume_from is not None:
        state.restore(resume_from, world.rank)
        rate.at(max(0, state.steps - 1))  # of the last step, which an epoch's result tells

    while not state.finished:
        state.begin_epoch()
        model.train()
        for norm in frozen_norms:
            norm.training = False  # eval() would reach dropout that was inserted behind it
        chunks, first = training.batches(order), state.batch + 1
        for number, rows in enumerate(chunks[state.batch :], first):
            plan.at(state.steps / (spec.epochs * steps_per_epoch))
            rate.at(state.steps)
            batch, whole = data.train.take(world.part(rows)), None if world.alone else data.train.targets[rows].to(device)
            inputs = augment(batch.inputs, training.augmentation, noise, data.scaling).to(device)
            steps = number % accumulation == 0 or number == len(chunks)
            with unsynchronised(forward, not steps):
                with step.forward():
                    answers = _proved_forward(forward, inputs, training) if number == first else forward(inputs)
                    loss = objective(answers, batch.targets.to(device), whole)
                losses.add(loss, len(rows))
                step.backward(_shared(loss, _share(number, len(chunks), accumulation), world.size))
            if steps:
                step.update()
                losses.settle()
                state.batch, state.steps = number, state.steps + 1
                between_steps(state)

        world.same_buffers(model)
        train, val = evaluate(model, train_sample, task, world=world), evaluate(model, data.val, task, names, world)
        losses.finite(train.loss + val.loss, f"in eval mode after epoch {state.epoch}")
        result = EpochResult(
            state.epoch, spec.epochs, losses.mean(), train.loss, val.metrics, rate.now, state.seconds(), train.random or val.random
        )
        if best is not None:
            result = replace(result, kept=best.offer(state.epoch, result.metrics(), model))
        state.end_epoch()
        yield result
        between_steps(state)

    if best is not None:
        best.restore(model)
    plan.at(1.0)  # however early it ended: an MC program has the rates that it was rehearsed with
    plan.check()


def batches(rows: int, size: int, order: torch.Generator | None = None, ranks: int = 1) -> list[Tensor]:
    """Row numbers of each batch, in a random order. A last batch of fewer than two rows for each of `ranks` is left out: batch norm
    cannot take one row."""
    result = list(torch.split(torch.arange(rows) if order is None else torch.randperm(rows, generator=order), size))
    return result[:-1] if size > 1 and len(result) > 1 and len(result[-1]) < 2 * ranks else result


def compiled(model: nn.Module) -> nn.Module:
    """`model` through torch.compile, sharing its weights. What cannot be compiled is raised at the first forward.

    On a CPU convolutions keep their layout: where Inductor of torch 2.13 changes it, a residual network with a stride corrupts the heap.
    """
    keep: dict[str, Any] = {"layout_optimization": False} if device_of(model).type == "cpu" else {}
    return torch.compile(model, dynamic=True, options=keep)  # type: ignore[return-value]  # a module goes in and a module comes out


def _share(number: int, chunks: int, size: int) -> int:
    """How many batches share the step of batch `number`, counted from 1; the last step may have fewer."""
    first = (number - 1) // size * size
    return min(size, chunks - first)


def _shared(loss: Tensor, batches: int, ranks: int) -> Tensor:
    """`loss` as it is differentiated: a step takes the mean over its batches, and the sum over ranks, whose gradients are averaged."""
    return loss if batches == ranks else loss * ranks / batches


def _proved_forward(forward: nn.Module, inputs: Tensor, training: Training) -> Tensor:
    """The first forward after a switch to training mode: it must draw random numbers if the plan has a rate above 0."""
    with drawing() as draws:
        answers: object = forward(inputs)
    require_active(training.plan.rows, draws, training.plan.t)
    wanted = [len(inputs), training.objective.task.outputs]
    if isinstance(answers, Tensor) and list(answers.shape) == wanted:
        return answers
    answer = f"{list(answers.shape)}" if isinstance(answers, Tensor) else f"a {type(answers).__name__}"
    message = f"spec.model.factory: the model answers {answer} to {len(inputs)} inputs; it must answer logits {wanted}"
    raise StageFailure("UserCode", message, ExitCode.USER_CODE)
