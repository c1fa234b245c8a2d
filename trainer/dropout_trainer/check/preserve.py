"""Leaves a caller's model as it was, whatever its forwards do: in a test the next assertion is about the same model."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeGuard, cast

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from dropout_trainer.gate import rng
from dropout_trainer.gate.outputs import same_bits
from dropout_trainer.gate.target import Module

Held = dict[str, Tensor | None]


@contextmanager
def preserved(module: nn.Module) -> Iterator[None]:
    """Modes, parameters, buffers, and the random streams (global ones, each GPU's, the module's own) are afterwards what they were."""
    flags = [(part, part.training) for part in module.modules()]
    names = [(held, dict(held)) for part in module.modules() for held in _tensors(part)]
    values = {id(tensor): (tensor, tensor.detach().clone()) for _, held in names for tensor in held.values() if _has_value(tensor)}
    own = [(generator, generator.get_state()) for generator in Module(module).generators()]
    gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    try:
        with rng.preserved():
            yield
    finally:
        for part, training in flags:
            part.training = training
        for held, before in names:
            held.update({name: tensor for name, tensor in before.items() if tensor is None or _has_value(tensor)})
        with torch.no_grad():
            for tensor, value in values.values():
                if not same_bits(tensor.detach(), value):
                    tensor.copy_(value)
        for generator, state in own:
            generator.set_state(state)
        for number, state in enumerate(gpus):
            torch.cuda.set_rng_state(state, number)


@contextmanager
def untraced() -> Iterator[None]:
    """torch logs each step of an export for its own developers, whatever the level is; pytest would show that under each failure."""
    def drop(record: logging.LogRecord) -> bool:
        return False

    trace = logging.getLogger("torch.__trace")
    trace.addFilter(drop)
    try:
        yield
    finally:
        trace.removeFilter(drop)


def _tensors(part: nn.Module) -> tuple[Held, Held]:
    return cast("Held", part._parameters), part._buffers


def _has_value(tensor: Tensor | None) -> TypeGuard[Tensor]:
    """False also for a lazy parameter, which stays what the first forward makes of it."""
    return tensor is not None and not is_lazy(tensor)
