"""The loss that is minimised, batch by batch: looked at in time, averaged over an epoch."""

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from dropout_api.model import Wire
from dropout_api.names import ExitCode
from dropout_api.training import TrainingSpec
from dropout_trainer.errors import StageFailure
from dropout_trainer.train.distributed import ALONE, World

CHECKED_EVERY = {"cpu": 1, "cuda": 50}
"""Steps after which losses are looked at: on a GPU a look waits for it."""


class Sums(Wire):
    """What an epoch's batches come to so far."""

    loss: Annotated[float, Field(allow_inf_nan=False)] = 0.0
    """Of all rows together."""
    rows: Annotated[int, Field(ge=0)] = 0
    batches: Annotated[int, Field(ge=0)] = 0


class Losses:
    """The losses of an epoch's batches; each is looked at, on a GPU several at a time."""

    def __init__(self, spec: TrainingSpec, device: torch.device, world: World = ALONE) -> None:
        self._spec, self._world, self._every = spec, world, CHECKED_EVERY.get(device.type, 1)
        self._waiting: list[tuple[Tensor, int]] = []
        self.begin(1)

    def begin(self, epoch: int, sums: Sums = Sums()) -> None:  # noqa: B008 - it cannot be changed
        """From here on losses are of this epoch, after the batches of `sums`."""
        self._epoch = epoch
        self._sum, self._rows, self._batches = sums.loss, sums.rows, sums.batches

    def add(self, loss: Tensor, rows: int) -> None:
        """`loss` is the mean over `rows` rows, of several ranks this one's part of it. Raises StageFailure when it, or one that waits,
        is not finite."""
        self._waiting.append((loss.detach(), rows))
        if self._world.alone and len(self._waiting) >= self._every:
            self._look()

    def settle(self) -> None:
        """After a step, when ranks are at one point: what `add` does at once for a single one. Raises StageFailure on all alike."""
        if not self._world.alone and len(self._waiting) >= self._every:
            self._look()

    def sums(self) -> Sums:
        """Of all ranks. A collective; raises StageFailure when one that waits is not finite."""
        self._look()
        return Sums(loss=self._sum, rows=self._rows, batches=self._batches)

    def mean(self) -> float:
        """Over rows. Raises StageFailure when one that waits is not finite."""
        self._look()
        return self._sum / self._rows

    def _look(self) -> None:
        """A collective where any wait."""
        found = [loss.item() for loss, _ in self._waiting]
        if found and not self._world.alone:
            found = self._world.sum(torch.tensor(found, dtype=torch.float64)).tolist()
        for loss, (_, rows) in zip(found, self._waiting, strict=True):
            self._batches += 1
            self._sum += self.finite(loss, f"in epoch {self._epoch}, batch {self._batches}") * rows
            self._rows += rows
        self._waiting.clear()

    def finite(self, loss: float, where: str) -> float:
        """`loss` itself. Raises StageFailure when it is not finite."""
        if math.isfinite(loss):
            return loss
        rate = f"lower spec.training.optimizer.learningRate (now {self._spec.optimizer.learning_rate:g})"
        clip = "" if self._spec.gradient_clip_norm else " or set spec.training.gradientClipNorm"
        raise StageFailure("NonFiniteLoss", f"the loss became {loss} {where}; {rate}{clip}", ExitCode.NON_FINITE_LOSS)
