"""NumPy arrays as inputs and targets."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from dropout_trainer.readers.failures import invalid
from dropout_trainer.readers.labels import class_labels

Array = np.ndarray[Any, np.dtype[Any]]
IMAGE_DIMENSIONS = 4
WHITE = 255
SCALED_DIMENSIONS = (2, 3)
"""Inputs that get a scaling: rows of features, and sequences of them. Images are taken as they are."""


def as_inputs(array: Array, field: str, name: str) -> Tensor:
    """Floats [N, ...] as float32, and [N] as [N, 1]; uint8 [N, channels, height, width] as images in 0…1; other integers [N, length] as
    token numbers of int64. Raises StageFailure for anything else."""
    if array.ndim == 0:
        raise invalid(field, f"'{name}' is a single value; rows [N, ...] are needed")
    if array.dtype == np.uint8 and array.ndim == IMAGE_DIMENSIONS:
        return torch.from_numpy(array.astype(np.float32) / WHITE)
    if np.issubdtype(array.dtype, np.integer) and array.ndim == 2:
        tokens = torch.from_numpy(_int64(array, field, name))
        if tokens.numel() and int(tokens.min()) < 0:
            what = f"'{name}' holds integers, which are token numbers from 0, but has {int(tokens.min())}"
            raise invalid(field, f"{what}; save features as floats")
        return tokens
    if not _numeric(array):
        raise invalid(field, f"'{name}' is {array.dtype}; floats, or integers for tokens and images, are needed")
    values = torch.from_numpy(_float32(array))
    return values.unsqueeze(1) if values.dim() == 1 else values


def as_targets(array: Array, field: str, name: str) -> tuple[Tensor, tuple[str, ...]]:
    """Integers and booleans [N] as class numbers, strings [N] as classes with names, floats [N] and [N, values] as float32 [N, values].

    Raises StageFailure for anything else.
    """
    if array.ndim == 1 and array.dtype.kind in "US":
        texts = [value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value) for value in array.tolist()]
        labels = class_labels(texts, field, name)
        return labels.numbers, labels.names
    if array.ndim == 1 and array.dtype.kind in "iub":
        return _classes(torch.from_numpy(_int64(array, field, name)), field, name)
    if array.dtype.kind == "f" and array.ndim in (1, 2):
        return torch.from_numpy(_float32(array)).reshape(len(array), -1), ()
    wanted = "[N] of integers or strings for classes, or [N] or [N, values] of floats"
    raise invalid(field, f"'{name}' is {list(array.shape)} of {array.dtype}, but must be {wanted}")


def _classes(numbers: Tensor, field: str, name: str) -> tuple[Tensor, tuple[str, ...]]:
    """Numbers from 0 without a gap stay what they are."""
    labels = class_labels([str(number) for number in numbers.tolist()], field, name)
    return labels.numbers, labels.names


def _float32(array: Array) -> Array:
    with np.errstate(over="ignore"):  # infinity is told with its split and field
        return np.array(array, np.float32)


def _int64(array: Array, field: str, name: str) -> Array:
    if array.dtype == np.uint64 and array.size and int(array.max()) > np.iinfo(np.int64).max:
        raise invalid(field, f"'{name}' holds numbers beyond int64")
    return np.array(array, np.int64)


def _numeric(array: Array) -> bool:
    return array.dtype.kind in "fiub"
