"""Answers of a model as named leaves, and when two answers count as equal.

Bitwise equality holds for repeats of one call only: a row alone and the same row in a batch differ by 5e-5 on CPU matrix
products, an eager fast path and its export by 5e-7 (measured). A dropout that is on moves outputs by tenths of their size.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

RELATIVE = {torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""Of the largest absolute value in the expected output; of float32 and wider types DEFAULT_RELATIVE."""
DEFAULT_RELATIVE = 1e-3
ABSOLUTE = 1e-6
"""Where an output is next to zero, what rounding leaves of terms that cancel."""
MAX_DEPTH = 3

Outputs = dict[str, Any]
"""Leaves of an answer by their path in it: tensors, and numbers or texts beside them."""


def leaves(answer: Any) -> Outputs:
    """Every leaf of an answer, of containers, of torch's and libraries' output classes, and of plain objects."""
    found: Outputs = {}
    for path, leaf in pytree.tree_flatten_with_path(answer)[0]:
        name = pytree.keystr(path).replace("['", ".").replace("']", "").lstrip(".")
        _collect(leaf, name or "output", found, MAX_DEPTH)
    return found


def _collect(leaf: Any, name: str, found: Outputs, depth: int) -> None:
    if isinstance(leaf, Tensor):
        found[name] = leaf.detach()
    elif hasattr(leaf, "__dict__") and depth and not callable(leaf):
        for key, value in vars(leaf).items():
            for path, inner in pytree.tree_flatten_with_path(value)[0]:
                _collect(inner, f"{name}.{key}{pytree.keystr(path)}", found, depth - 1)
    elif leaf is None or isinstance(leaf, bool | int | float | str | torch.SymInt):
        found[name] = leaf


def finite(outputs: Outputs) -> bool:
    """Whether no floating-point leaf holds a NaN. Infinity is allowed: masks and log-probabilities use it."""
    return not any(leaf.is_floating_point() and bool(leaf.isnan().any()) for leaf in outputs.values() if isinstance(leaf, Tensor))


def identical(one: Outputs, other: Outputs) -> bool:
    """Bit for bit, NaN included."""
    return one.keys() == other.keys() and all(same_bits(one[name], other[name]) for name in one)


def same_bits(one: Any, other: Any) -> bool:
    if not (isinstance(one, Tensor) and isinstance(other, Tensor)):
        return type(one) is type(other) and (one == other or one != one)
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    one, other = _dense(one), _dense(other)
    return torch.equal(one.contiguous().reshape(-1).view(torch.uint8), other.contiguous().reshape(-1).view(torch.uint8))


def _dense(tensor: Tensor) -> Tensor:
    if tensor.is_quantized:
        return tensor.dequantize()
    return tensor if tensor.layout == torch.strided else tensor.to_dense()


@dataclass(frozen=True)
class Difference:
    """Of two answers, where they differ most for what is allowed there."""

    name: str = ""
    largest: float = 0.0
    """Largest absolute difference; infinite where shapes, types or finiteness differ."""
    allowed: float = 0.0
    row: int | None = None
    """Index in the first dimension, where there is one."""

    @property
    def excess(self) -> float:
        """How often what is allowed; infinite where nothing is."""
        if self.largest == 0:
            return 0.0
        return self.largest / self.allowed if self.allowed else torch.inf

    @property
    def equal(self) -> bool:
        return self.largest <= self.allowed

    def __str__(self) -> str:
        place = f" in '{self.name}'" if self.name and self.name != "output" else ""
        row = f", at row {self.row}" if self.row is not None else ""
        return f"largest difference {self.largest:.3g}{place}, allowed {self.allowed:.3g}{row}"


def difference(
    actual: Mapping[str, Any], expected: Mapping[str, Any], relative: float = DEFAULT_RELATIVE, sizes: Tensor | None = None,
) -> Difference:
    """The worst leaf of all. Missing leaves differ infinitely; numbers beside tensors are compared like tensors.

    `relative` is allowed of the largest expected value in a leaf, more where the leaf's type is coarser. With `sizes` [columns] it is
    allowed of those instead, and differences are told in units of them.
    """
    if sizes is not None:
        actual, expected = _in_units(actual, sizes), _in_units(expected, sizes)
    worst = Difference()
    for name in expected.keys() | actual.keys():
        if name not in actual or name not in expected:
            return Difference(name, torch.inf, 0.0)
        found = _leaf_difference(name, actual[name], expected[name], relative, None if sizes is None else 1.0)
        if found.excess > worst.excess or not worst.name:
            worst = found
    return worst


def _in_units(outputs: Mapping[str, Any], sizes: Tensor) -> Outputs:
    return {name: leaf.double() / sizes if isinstance(leaf, Tensor) and leaf.shape[-1:] == sizes.shape else leaf
            for name, leaf in outputs.items()}


def _leaf_difference(name: str, actual: Any, expected: Any, relative: float, size: float | None = None) -> Difference:
    if not (isinstance(actual, Tensor) and isinstance(expected, Tensor)):
        return Difference(name, 0.0 if same_bits(actual, expected) or actual == expected else torch.inf, 0.0)
    if actual.shape != expected.shape:
        return Difference(name, torch.inf, 0.0)
    if actual.numel() == 0:
        return Difference(name)
    if not expected.is_floating_point() and not expected.is_complex():
        gaps = (actual != expected).double()
        return Difference(name, float(gaps.max()), 0.0, _row(gaps))
    one, other = (tensor.to(torch.complex128 if tensor.is_complex() else torch.float64) for tensor in (actual, expected))
    gaps = torch.where(one == other, torch.zeros((), dtype=torch.float64), (one - other).abs())  # infinity equals itself
    gaps = torch.where(one.isnan() & other.isnan(), torch.zeros((), dtype=torch.float64), gaps)
    finite_sizes = other.abs()[other.isfinite()]
    share = max(relative, RELATIVE.get(expected.dtype, 0.0))
    allowed = ABSOLUTE + share * (size or (float(finite_sizes.max()) if len(finite_sizes) else 0.0))
    gaps = torch.nan_to_num(gaps, nan=torch.inf)
    return Difference(name, float(gaps.max()), allowed, _row(gaps))


def _row(gaps: Tensor) -> int | None:
    return int(gaps.reshape(len(gaps), -1).amax(1).argmax()) if gaps.dim() else None
