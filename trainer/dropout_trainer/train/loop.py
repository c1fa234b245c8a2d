"""The training loop, top to bottom: a generator of epoch results. Whatever has a side effect consumes that stream.

Losses are cross-entropies in nats. The gap is taken between losses that are both measured in eval mode: the loss that
is minimised has dropout in it, so the gap to it would understate overfitting.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - as everyone writes it

from dropout_api.candidate import PlanRow
from dropout_api.names import ExitCode, Metric
from dropout_api.training import Optimizer, TrainingSpec
from dropout_trainer.data import Data, Split
from dropout_trainer.errors import StageFailure
from dropout_trainer.train.modes import drawing, require_active
from dropout_trainer.train.seeds import generator
from dropout_trainer.train.stopping import Best

EVAL_BATCH = 512


@dataclass(frozen=True)
class Score:
    """A model's mean loss and accuracy (0…1) on a split, in eval mode."""

    loss: float
    accuracy: float
    random: bool
    """Whether the model drew random numbers all the same: some of its dropout is live in eval mode."""


@dataclass(frozen=True)
class EpochResult:
    """What one epoch came to. Losses without a mode in their name are measured in eval mode."""

    epoch: int
    epochs: int
    train_loss_with_dropout: float
    train_loss: float
    val_loss: float
    val_accuracy: float
    seconds: float
    random_in_eval: bool = False
    kept: bool = True
    """Whether the model that training ends with is, so far, this epoch's."""

    @property
    def val_gap(self) -> float:
        return self.val_loss - self.train_loss

    def metrics(self) -> dict[str, float]:
        """By MLflow metric name; without the time, which is no property of the model."""
        return {
            Metric.TRAIN_LOSS.value: self.train_loss, Metric.VAL_LOSS.value: self.val_loss, Metric.VAL_GAP.value: self.val_gap,
            Metric.VAL_ACCURACY.value: self.val_accuracy, Metric.DROPOUT_LOSS.value: self.train_loss_with_dropout,
        }

    def __str__(self) -> str:
        return (
            f"epoch {self.epoch}/{self.epochs}  train {self.train_loss:.4f}  val {self.val_loss:.4f}  gap {self.val_gap:+.4f}  "
            f"accuracy {self.val_accuracy:.3f}  {self.seconds:.1f}s"
        )


def fit(
    model: nn.Module, data: Data, plan: Sequence[PlanRow], spec: TrainingSpec, seeds: dict[str, int],
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[EpochResult]:
    """Trains `model` in place, on the device where it is, and yields the result of each epoch.

    With early stopping the model holds the weights of its best epoch once the stream has ended. Raises StageFailure when
    a loss is not finite, when the model answers another shape than [N, num_classes], or when its dropout is off.
    """
    order, sample = generator(seeds, "shuffle"), generator(seeds, "sample")
    train_sample = data.train.take(torch.randperm(len(data.train), generator=sample)[: len(data.val)])
    optimizer = make_optimizer(model, spec.optimizer)
    best = Best(spec.early_stopping) if spec.early_stopping else None

    for epoch in range(1, spec.epochs + 1):
        started, losses, seen = clock(), 0.0, 0
        model.train()
        for number, rows in enumerate(batches(len(data.train), spec.batch_size, order), 1):
            batch = data.train.take(rows)
            logits = (
                _proved_forward(model, batch, plan, data.num_classes) if number == 1 else model(_to_device(batch.inputs, model))
            )
            loss = F.cross_entropy(logits, _to_device(batch.targets, model))
            value = _finite(loss.item(), f"in epoch {epoch}, batch {number}", spec)
            losses, seen = losses + value * len(rows), seen + len(rows)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            if spec.gradient_clip_norm is not None:
                nn.utils.clip_grad_norm_(model.parameters(), spec.gradient_clip_norm)
            optimizer.step()

        train, val = evaluate(model, train_sample), evaluate(model, data.val)
        _finite(train.loss + val.loss, f"in eval mode after epoch {epoch}", spec)
        result = EpochResult(
            epoch, spec.epochs, losses / seen, train.loss, val.loss, val.accuracy, clock() - started, train.random or val.random
        )
        if best is None:
            yield result
        else:
            yield replace(result, kept=best.offer(epoch, result.metrics(), model))
            if best.exhausted(epoch):
                break

    if best is not None:
        best.restore(model)


def batches(rows: int, size: int, order: torch.Generator) -> list[Tensor]:
    """Row numbers of each batch, in a random order. A last batch of one row is left out: batch norm cannot take it."""
    result = list(torch.split(torch.randperm(rows, generator=order), size))
    return result[:-1] if size > 1 and len(result) > 1 and len(result[-1]) == 1 else result


@torch.no_grad()
def evaluate(model: nn.Module, split: Split) -> Score:
    """The score of `model`, which is left in eval mode; the global random generators are left as they were."""
    model.eval()
    loss, right = 0.0, 0
    with drawing(restore=True) as draws:
        for inputs, targets in zip(torch.split(split.inputs, EVAL_BATCH), torch.split(split.targets, EVAL_BATCH), strict=True):
            logits, wanted = model(_to_device(inputs, model)), _to_device(targets, model)
            loss += F.cross_entropy(logits, wanted, reduction="sum").item()
            right += int((logits.argmax(1) == wanted).sum())
    return Score(loss / len(split), right / len(split), draws.happened)


def make_optimizer(model: nn.Module, spec: Optimizer) -> torch.optim.Optimizer:
    """Raises StageFailure for a model without parameters."""
    parameters = list(model.parameters())
    if not parameters:
        raise StageFailure("UserCode", "spec.model.factory: the model has no parameters to train", ExitCode.USER_CODE)
    rate, decay = spec.learning_rate, spec.weight_decay
    match spec.name:
        case "AdamW":
            return torch.optim.AdamW(parameters, rate, weight_decay=decay)
        case "Adam":
            return torch.optim.Adam(parameters, rate, weight_decay=decay)
        case "SGD":
            return torch.optim.SGD(parameters, rate, momentum=spec.momentum, weight_decay=decay)


def _proved_forward(model: nn.Module, batch: Split, plan: Sequence[PlanRow], classes: int) -> Tensor:
    """The first forward after a switch to training mode: it must draw random numbers if the plan has a rate above 0."""
    with drawing() as draws:
        logits: object = model(_to_device(batch.inputs, model))
    require_active(plan, draws)
    wanted = [len(batch), classes]
    if isinstance(logits, Tensor) and list(logits.shape) == wanted:
        return logits
    answer = f"{list(logits.shape)}" if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
    message = f"spec.model.factory: the model answers {answer} to {len(batch)} inputs; it must answer logits {wanted}"
    raise StageFailure("UserCode", message, ExitCode.USER_CODE)


def _finite(loss: float, where: str, spec: TrainingSpec) -> float:
    if math.isfinite(loss):
        return loss
    rate = f"lower spec.training.optimizer.learningRate (now {spec.optimizer.learning_rate:g})"
    clip = "" if spec.gradient_clip_norm else " or set spec.training.gradientClipNorm"
    raise StageFailure("NonFiniteLoss", f"the loss became {loss} {where}; {rate}{clip}", ExitCode.NON_FINITE_LOSS)


def _to_device(tensor: Tensor, model: nn.Module) -> Tensor:
    parameter = next(model.parameters(), None)
    return tensor if parameter is None else tensor.to(parameter.device)
