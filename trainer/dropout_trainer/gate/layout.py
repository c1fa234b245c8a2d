"""Which dimension of a model's inputs counts rows, where its layers tell."""

from typing import Any

from torch import Tensor, nn

from dropout_trainer.gate.inputs import Call
from dropout_trainer.gate.target import Module

TIME_FIRST = (nn.RNNBase, nn.MultiheadAttention)
UNBATCHED = 2
"""Dimensions of an input of these layers that has no batch at all."""


def batch_dim(module: nn.Module, example: Call) -> int | None:
    """0, unless a recurrent or attention layer with `batch_first=False` gets the example's own first two dimensions: then 1, or
    None where it gets a single sequence."""
    seen: list[int | None] = []

    def look(layer: Any, args: Any, kwargs: Any) -> None:
        value = next((value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)), None)
        leading = next((tensor.shape[:2] for tensor in example.tensors if tensor.dim() >= UNBATCHED), None)
        if value is None or leading is None or layer.batch_first:
            return
        if value.dim() == UNBATCHED and value.shape[0] == leading[0]:
            seen.append(None)
        elif value.dim() > UNBATCHED and value.shape[:2] == leading and leading[0] != leading[1]:
            seen.append(1)

    layers = [layer for layer in module.modules() if isinstance(layer, TIME_FIRST)]
    hooks = [layer.register_forward_pre_hook(look, with_kwargs=True) for layer in layers]
    try:
        if layers:
            Module(module).seeded(example, 0)
    finally:
        for hook in hooks:
            hook.remove()
    return seen[0] if seen else 0
