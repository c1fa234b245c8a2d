"""Whether what a checkpoint holds can be that of a training: nothing of it reaches the training before."""

import math
import random
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from dropout_api.training import TrainingSpec
from dropout_trainer.train.loop import Training
from dropout_trainer.train.optimizers import kept_by
from dropout_trainer.train.precision import SCALER
from dropout_trainer.train.state import BUFFER, SCALARS, Captured, GlobalStreams, Position, Streams, to_tensor, transient
from dropout_trainer.train.stopping import tensors_of


def problems(saved: Captured, training: Training) -> Iterator[str]:
    """Why `saved` is of another training, or of none; nothing when it fits."""
    model, spec = training.model, training.spec
    yield from _position(saved.position, len(training.batches()), spec)
    yield from unlike(saved.model.weights, tensors_of(model), "model")
    if saved.best is not None:
        yield from unlike(saved.best.weights, tensors_of(model), "best")
    yield from _moving(saved.moving, model, spec)
    at, ranks = saved.position, training.world.size
    if len(at.others) + 1 != ranks:
        yield f"state: is of {len(at.others) + 1} processes, but here are {ranks}"
    for streams in (at.streams, *at.others):
        yield from _streams(streams)


def unlike(found: Mapping[str, Tensor], own: Mapping[str, Tensor], part: str) -> Iterator[str]:
    """How tensors differ from the model's own in names, shapes and types."""
    if names := sorted(found.keys() ^ own.keys()):
        yield f"{part}: of another model ({', '.join(names[:5])})"
        return
    for name, tensor in own.items():  # a safetensors file has no order
        if found[name].shape != tensor.shape or found[name].dtype != tensor.dtype:
            yield f"{part}: {name} is {_kind(found[name])}, but the model's is {_kind(tensor)}"
            return


def _position(at: Position, chunks: int, spec: TrainingSpec) -> Iterator[str]:
    per_epoch = math.ceil(chunks / spec.gradient_accumulation)
    done = (at.epoch - 1) * per_epoch + math.ceil(at.batch / spec.gradient_accumulation)
    whole = at.batch % spec.gradient_accumulation == 0 or at.batch == chunks
    if at.epoch > spec.epochs + 1 or at.batch > chunks or at.steps != done or not whole or bool(at.batch) != bool(at.losses.rows):
        yield f"state: epoch {at.epoch}, batch {at.batch} after {at.steps} steps is no place in this training"
    if (at.best is None) != (spec.early_stopping is None) or (at.scaler is None) != (spec.precision != "Float16"):
        yield "state: not of this spec's precision and early stopping"
    if at.scaler is not None and at.scaler.keys() != SCALER:
        yield "state: scaler is incomplete"


def _moving(moving: Mapping[str, Tensor], model: nn.Module, spec: TrainingSpec) -> Iterator[str]:
    parameters, buffers, kept = dict(model.named_parameters()), transient(model), kept_by(spec.optimizer)
    seen: dict[str, set[str]] = {BUFFER: set()}
    for full, tensor in moving.items():
        key, _, name = full.partition(":")
        own = buffers.get(name) if key == BUFFER else parameters.get(name)
        shape = torch.Size() if key in SCALARS else None if own is None else own.shape
        if own is None or key not in kept | {BUFFER} or tensor.shape != shape:
            yield f"moving: {full} is {_kind(tensor)}, which this model and optimiser do not have"
            return
        owner, what = (BUFFER, name) if key == BUFFER else (name, key)
        seen.setdefault(owner, set()).add(what)
    if seen.pop(BUFFER) != buffers.keys() or any(keys != kept for keys in seen.values()):
        yield "moving: is incomplete"


def _streams(streams: Streams) -> Iterator[str]:
    yield from unrestorable(streams)
    try:
        for state in (streams.order, streams.noise):
            torch.Generator().set_state(to_tensor(state))
    except (RuntimeError, TypeError, ValueError) as error:
        yield f"state: a random stream cannot be restored ({error})"


def unrestorable(streams: GlobalStreams) -> Iterator[str]:
    """Why the global generators cannot take `streams`: each is tried on a generator of its own."""
    try:
        wanted = streams.globals()
        random.Random().setstate(wanted.python)  # noqa: S311 - no secret is made of it
        np.random.RandomState().set_state(wanted.numpy)
        torch.Generator().set_state(to_tensor(streams.torch[0]))
    except (RuntimeError, TypeError, ValueError, OverflowError) as error:
        yield f"state: a random stream cannot be restored ({error})"
    gpus = torch.cuda.device_count() if torch.cuda.is_initialized() else 0  # type: ignore[no-untyped-call]
    if len(streams.torch) != 1 + gpus:
        yield f"state: was saved with {len(streams.torch) - 1} GPUs, but here are {gpus}"


def _kind(tensor: Tensor) -> str:
    return f"{list(tensor.shape)} of {str(tensor.dtype).removeprefix('torch.')}"
