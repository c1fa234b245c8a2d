"""What a training changes as it goes, in one place, so that it can be copied between two steps and taken up again.

What stays as the spec and the seed make it is not in here: the data, the plan's rows, the learning rate's course, the sample of the
training set. Nor is what a user's model keeps outside of parameters and buffers, as a counter in an attribute.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Self

import torch
from pydantic import ConfigDict, Field
from torch import Tensor, nn

from dropout_api.model import Wire
from dropout_trainer.dropout.plan import AppliedPlan
from dropout_trainer.train.losses import Losses, Sums
from dropout_trainer.train.modes import Generators
from dropout_trainer.train.precision import Step
from dropout_trainer.train.stopping import Best, Snapshot

BUFFER = "buffer"
"""Prefix of a buffer that is not in the state dict, among what moves beside the weights."""
SCALARS = ("step",)
"""What an optimiser keeps as one number, whatever the shape of its parameter."""
Count = Annotated[int, Field(ge=0)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Word = Annotated[int, Field(ge=0, lt=2**32)]


class Saved(Wire):
    """Numbers that come back from JSON to the bit, those that are not finite too; bytes in base64."""

    model_config = ConfigDict(ser_json_inf_nan="strings", ser_json_bytes="base64", val_json_bytes="base64")


class GlobalStreams(Saved):
    """The global generators of python, numpy and torch (CPU, then GPUs)."""

    python: Annotated[list[Word], Field(min_length=625, max_length=625)]
    python_gauss: float | None = None
    numpy: Annotated[list[Word], Field(min_length=624, max_length=624)]
    numpy_at: Annotated[int, Field(ge=0, le=624)]
    numpy_gauss: float | None = None
    torch: Annotated[list[bytes], Field(min_length=1, max_length=1024)]

    @classmethod
    def now(cls, **own: bytes) -> Self:
        """As they are; `own` are those of a subclass."""
        found = Generators.now()
        _, python, gauss = found.python
        _, numpy, numpy_at, has_gauss, numpy_gauss = found.numpy
        return cls(
            python=list(python), python_gauss=gauss, numpy=numpy.tolist(), numpy_at=int(numpy_at),
            numpy_gauss=float(numpy_gauss) if has_gauss else None, torch=[to_bytes(state) for state in found.torch], **own,
        )

    def globals(self) -> Generators:
        python = (3, tuple(self.python), self.python_gauss)
        numpy = ("MT19937", self.numpy, self.numpy_at, int(self.numpy_gauss is not None), self.numpy_gauss or 0.0)
        return Generators(python, numpy, [to_tensor(state) for state in self.torch])


class Streams(GlobalStreams):
    """And the loop's own."""

    order: bytes
    """Of the order of batches, before it drew that of the epoch in progress."""
    noise: bytes
    """Of augmentation."""


class Position(Saved):
    """How far a training has come, between two steps. Of a finished epoch all is in the next one's beginning."""

    epoch: Annotated[int, Field(ge=1)]
    """In progress."""
    batch: Count
    """Batches of it that are done."""
    steps: Count
    """Optimiser steps that are done, of all epochs."""
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    """That the epoch in progress has taken."""
    t: Annotated[float, Field(ge=0, le=1)]
    """Share of all steps for which scheduled rates of dropout are set."""
    losses: Sums
    best: float | None = None
    """`Best.value`, with early stopping."""
    scaler: dict[str, Finite] | None = None
    streams: Streams
    """Of rank 0."""
    others: list[Streams] = []
    """Of the ranks above it, in order."""

    def streams_of(self, rank: int) -> Streams:
        return self.others[rank - 1] if rank else self.streams


@dataclass(frozen=True)
class Captured:
    """A copy of a `State`. Tensors are the copy's own, and nobody writes to them."""

    position: Position
    model: Snapshot
    """Its epoch is the last one that has ended."""
    moving: Mapping[str, Tensor]
    """What an optimiser keeps of a parameter, as `exp_avg:features.0.weight`, and buffers outside of the state dict."""
    best: Snapshot | None = None


@dataclass
class State:
    """All that a step changes."""

    model: nn.Module
    plan: AppliedPlan
    optimizer: torch.optim.Optimizer
    step: Step
    losses: Losses
    order: torch.Generator
    noise: torch.Generator
    best: Best | None
    epochs: int
    clock: Callable[[], float] = time.monotonic
    epoch: int = 1
    batch: int = 0
    steps: int = 0

    def __post_init__(self) -> None:
        self._before = 0.0
        self._started: float | None = None
        self._drawn = self.order.get_state()

    @property
    def finished(self) -> bool:
        """Whether no epoch is left, or patience has run out."""
        return self.epoch > self.epochs or (self.best is not None and self.best.exhausted(self.epoch - 1))

    def begin_epoch(self) -> None:
        """The clock runs from here on; for an epoch that was taken up again it has run before."""
        self._started = self.clock() - self._before

    def seconds(self) -> float:
        """That the epoch in progress has taken."""
        return self._before if self._started is None else self.clock() - self._started

    def end_epoch(self) -> None:
        """The next one's beginning."""
        self.epoch, self.batch, self._before, self._started = self.epoch + 1, 0, 0.0, None
        self._drawn = self.order.get_state()
        self.losses.begin(self.epoch)

    def captured(self, weights: Snapshot | None = None, others: Sequence[Streams] = ()) -> Captured:
        """A copy; weights stay on their device. `weights`, where they are those of the epoch that has just ended, spare one of the model.
        `others` are the streams of the ranks above 0.

        Raises StageFailure when a loss that waits to be looked at is not finite.
        """
        position = Position(
            epoch=self.epoch, batch=self.batch, steps=self.steps, seconds=self.seconds(), t=self.plan.t, losses=self.losses.sums(),
            best=self.best.value if self.best else None, scaler=self.step.scaler(), streams=self.streams(),
            others=list(others),
        )
        same = weights is not None and self.batch == 0 and weights.epoch == self.epoch - 1
        model = weights if same and weights else Snapshot.of(self.model, self.epoch - 1)
        moving = {name: tensor.detach().to("cpu", copy=True) for name, tensor in self._moving().items()}
        return Captured(position, model, moving, self.best.kept if self.best else None)

    def restore(self, saved: Captured, rank: int = 0) -> None:
        """Goes on from `saved`, which must be of the same training; see `checkpoints.fitting`."""
        at = saved.position
        streams = at.streams_of(rank)
        saved.model.restore(self.model)
        self._restore_moving(saved.moving)
        self.step.restore_scaler(at.scaler)
        if self.best is not None and at.best is not None:
            self.best.value, self.best.kept = at.best, saved.best
        self.epoch, self.batch, self.steps, self._before = at.epoch, at.batch, at.steps, at.seconds
        self.losses.begin(at.epoch, at.losses)
        self.plan.at(at.t)
        self._drawn = to_tensor(streams.order)
        self.order.set_state(self._drawn)
        self.noise.set_state(to_tensor(streams.noise))
        streams.globals().restore()

    def streams(self) -> Streams:
        """Of this process, as they are now."""
        return Streams.now(order=to_bytes(self._drawn), noise=to_bytes(self.noise.get_state()))

    def _moving(self) -> dict[str, Tensor]:
        kept = {
            f"{key}:{name}": value for name, parameter in self.model.named_parameters() if parameter in self.optimizer.state
            for key, value in self.optimizer.state[parameter].items() if isinstance(value, Tensor)
        }
        return kept | {f"{BUFFER}:{name}": buffer for name, buffer in transient(self.model).items()}

    @torch.no_grad()
    def _restore_moving(self, moving: Mapping[str, Tensor]) -> None:
        parameters, buffers = dict(self.model.named_parameters()), transient(self.model)
        fused = bool(self.optimizer.defaults.get("fused"))  # else numbers lie on the CPU, wherever the parameters are
        for full, tensor in moving.items():
            key, _, name = full.partition(":")
            if key == BUFFER:
                buffers[name].copy_(tensor)
            else:
                parameter = parameters[name]
                device = "cpu" if key in SCALARS and not fused else parameter.device
                self.optimizer.state[parameter][key] = tensor.to(device, copy=True)


def transient(model: nn.Module) -> dict[str, Tensor]:
    """Buffers that are not in the state dict, by name."""
    kept = model.state_dict().keys()
    return {name: buffer for name, buffer in model.named_buffers(remove_duplicate=False) if name not in kept}


def to_bytes(state: Tensor) -> bytes:
    """Of a generator, [N] of uint8."""
    return state.numpy().tobytes()


def to_tensor(state: bytes) -> Tensor:
    return torch.frombuffer(bytearray(state), dtype=torch.uint8)
