"""Names of classes and segments, numbered."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dropout_trainer.readers.failures import invalid


@dataclass(frozen=True)
class Labels:
    """`numbers` [N] of int64 point into `names`."""

    names: tuple[str, ...]
    numbers: Tensor


def number_labels(texts: Sequence[str]) -> Labels:
    """Distinct texts in order: numbers by their value where all are numbers, else by their characters."""
    names = _in_order(set(texts))
    place = {name: number for number, name in enumerate(names)}
    return Labels(names, torch.tensor([place[text] for text in texts], dtype=torch.int64))


def class_labels(texts: Sequence[str], field: str, name: str, kind: str = "column") -> Labels:
    """Raises StageFailure when there is but one class, or so many that they must be something else."""
    labels = number_labels(texts)
    if len(labels.names) < 2:
        raise invalid(field, f"{kind} '{name}' holds one class alone, '{''.join(labels.names)}'; at least two are needed")
    if len(labels.names) > max(2, len(texts) // 2):
        what = f"{kind} '{name}' has {len(labels.names)} different values in {len(texts)} rows, too many for classes"
        raise invalid(field, f"{what}; for numbers use a reader with task: Regression, or name another column")
    return labels




def _in_order(names: set[str]) -> tuple[str, ...]:
    values = {name: _number(name) for name in names}
    if None in values.values():
        return tuple(sorted(names))
    return tuple(sorted(names, key=lambda name: (values[name], name)))


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
