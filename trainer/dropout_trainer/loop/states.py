"""What state_dict() gives, as JSON and tensors and back: neither needs pickle, so nothing of a checkpoint can run.

A JSON scalar or list stands for itself; anything else is an object with one key that says what it is.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from pydantic import JsonValue
from torch import Tensor

from dropout_trainer.train.checkpoints.folder import Refused

TENSOR, MAPPING, TUPLE, FLOAT, BYTES, ARRAY = "tensor", "mapping", "tuple", "float", "bytes", "array"
MOMENTS = {
    "exp_avg", "exp_avg_sq", "max_exp_avg_sq", "exp_inf", "momentum_buffer", "square_avg", "grad_avg", "acc_delta", "sum", "ax",
}
"""What torch's optimisers keep in the shape of a parameter; LBFGS and Adafactor keep other shapes too."""
DEEPEST = 50
"""Levels of nesting that are read."""


def split(value: object, tensors: dict[str, Tensor], path: str) -> JsonValue:
    """`value` as JSON; copies of its tensors, on the CPU, go into `tensors` by their path.

    Raises TypeError, with the path, for what is neither a tensor, a NumPy array of numbers, a number, text, bytes, None nor a tuple, list
    or mapping of those.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {FLOAT: repr(value)}
    if isinstance(value, Tensor):
        tensors[path] = value.detach().to("cpu", copy=True)
        return {TENSOR: path}
    if isinstance(value, np.generic | np.ndarray) and value.dtype.kind in "biuf":
        return split(value.item(), tensors, path) if isinstance(value, np.generic) else {ARRAY: [value.dtype.str, value.tolist()]}
    if isinstance(value, bytes):
        return {BYTES: value.hex()}
    if isinstance(value, Mapping):
        return {MAPPING: [[split(key, tensors, path), split(item, tensors, f"{path}.{key}")] for key, item in value.items()]}
    if isinstance(value, tuple | list):
        items: list[JsonValue] = [split(item, tensors, f"{path}.{number}") for number, item in enumerate(value)]
        return {TUPLE: items} if isinstance(value, tuple) else items
    raise TypeError(f"{path} is a {type(value).__name__}")


def joined(value: JsonValue, tensors: Mapping[str, Tensor], depth: int = DEEPEST) -> Any:
    """What `split` was given. Raises Refused when `value` is nothing that it gives."""
    if depth == 0:
        raise Refused(f"state: nested more than {DEEPEST} deep")
    if isinstance(value, list):
        return [joined(item, tensors, depth - 1) for item in value]
    if not isinstance(value, dict):
        return value
    try:
        ((kind, content),) = value.items()
        return READERS[kind](content, tensors, depth - 1)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise Refused(f"state: {str(value)[:60]} is nothing that a state can hold ({type(error).__name__})") from None


def _mapping(content: Any, tensors: Mapping[str, Tensor], depth: int) -> dict[Any, Any]:
    return {joined(key, tensors, depth): joined(item, tensors, depth) for key, item in content}


READERS: dict[str, Callable[[Any, Mapping[str, Tensor], int], Any]] = {
    TENSOR: lambda content, tensors, _: tensors[content],
    MAPPING: _mapping,
    TUPLE: lambda content, tensors, depth: tuple(joined(item, tensors, depth) for item in content),
    FLOAT: lambda content, *_: {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}[content],
    BYTES: lambda content, *_: bytes.fromhex(content),
    ARRAY: lambda content, *_: np.array(content[1], dtype=_number(content[0])),
}


def _number(name: str) -> "np.dtype[Any]":
    """Raises ValueError for a type that is none of numbers."""
    found = np.dtype(name)
    if found.kind not in "biuf":
        raise ValueError(name)
    return found


def misfits(optimizer: torch.optim.Optimizer, state: Any) -> Iterator[str]:
    """Tensors that an optimiser would keep of a parameter in another shape than it has: its load_state_dict takes them and fails later."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for number, kept in state["state"].items():
        for name, value in kept.items():
            if name in MOMENTS and isinstance(value, Tensor) and value.shape != parameters[number].shape:
                yield f"{name} of parameter {number} is {list(value.shape)}, but the parameter is {list(parameters[number].shape)}"
