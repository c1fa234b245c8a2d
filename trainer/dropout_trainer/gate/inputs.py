"""Calls to try on a model: its example, and varied ones made from that, finite and non-zero, for any number of rows.

Zeros hide a dropout and one scale hides another fault, so generated rows differ from real ones in size and sign. What a
model refuses or answers with NaN is not tried on it: `Inputs.settle` finds the strongest variation that it takes.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

SCALES = torch.tensor([0.1, 1.0, 3.0])
"""Sizes of generated rows, in units of the example's deviation."""
MAX_MASK_VALUES = 2
"""Integers with no more different values than this are masks or flags, not numbers to draw from."""


class Variation(IntEnum):
    """How far generated rows may be from real ones."""

    ROWS = 0
    """Rows of the example in another order."""
    MIXED = 1
    """Convex mixtures of the example's rows; integers from the example's range."""
    NOISE = 2
    """Noise of three scales around them."""


@dataclass(frozen=True)
class Call:
    """Arguments of one forward."""

    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)

    @property
    def tensors(self) -> list[Tensor]:
        return [leaf for leaf in pytree.tree_leaves((self.args, self.kwargs)) if isinstance(leaf, Tensor)]

    def map(self, change: Callable[[Tensor], Tensor]) -> "Call":
        args, kwargs = pytree.tree_map(lambda leaf: change(leaf) if isinstance(leaf, Tensor) else leaf, (self.args, self.kwargs))
        return Call(args, kwargs)

    def copy(self) -> "Call":
        """With tensors of its own: an op in place must not change the call that is repeated."""
        return self.map(lambda tensor: tensor.detach().clone())


@dataclass(frozen=True)
class Inputs:
    """Where calls come from. `batch_dim` is the dimension that counts rows in every tensor that has it; None: no such thing."""

    example: Call
    batch_dim: int | None = 0
    variation: Variation = Variation.NOISE
    fixed_rows: bool = False
    """Whether the number of rows cannot be changed, as in a program that was exported with a static batch."""

    @property
    def rows(self) -> int:
        """Rows of the example; 1 where nothing counts rows."""
        sizes = (tensor.shape[self._dim] for tensor in self.example.tensors if self._has_rows(tensor))
        return int(next(sizes, 1))

    @property
    def batched(self) -> bool:
        return self.batch_dim is not None and any(self._has_rows(tensor) for tensor in self.example.tensors)

    def sizes(self) -> tuple[int, ...]:
        """Numbers of rows to try: one, two, the example's, and beyond it."""
        if not self.batched or self.fixed_rows:
            return (self.rows,)
        return tuple(sorted({1, 2, self.rows, 2 * self.rows + 5}))

    def call(self, rows: int | None = None, seed: int = 0) -> Call:
        """A call with `rows` rows: real ones and generated ones by turns. The same for the same numbers."""
        count = self.rows if rows is None else rows
        leaves, spec = pytree.tree_flatten((self.example.args, self.example.kwargs))
        made = [self._leaf(leaf, count, 7919 * seed + number) if isinstance(leaf, Tensor) else leaf for number, leaf in enumerate(leaves)]
        args, kwargs = pytree.tree_unflatten(made, spec)
        return Call(args, kwargs)

    def settle(self, run: Callable[[Call], bool]) -> "Inputs":
        """With the strongest variation for which `run` says that the call was answered well.

        `run` gives False, or raises, for a call that the model does not take.
        """
        for variation in sorted(Variation, reverse=True):
            tried = replace(self, variation=variation)
            try:
                if all(run(tried.call(self.rows, seed)) for seed in range(2)):
                    return tried
            except Exception:  # noqa: S112 - what it raises is the model's own refusal of these inputs
                continue
        return replace(self, variation=Variation.ROWS)

    def take(self, call: Call, rows: Tensor) -> Call:
        """The rows with these indices."""
        return call.map(lambda tensor: tensor.index_select(self._dim, rows) if self.counts(tensor, call) else tensor)

    def join(self, one: Call, other: Call) -> Call:
        """The rows of both, one after the other."""
        others = iter(other.tensors)
        return one.map(lambda tensor: self._joined(tensor, next(others), one))

    def _joined(self, tensor: Tensor, other: Tensor, call: Call) -> Tensor:
        return torch.cat([tensor, other], self._dim) if self.counts(tensor, call) else tensor

    @property
    def _dim(self) -> int:
        assert self.batch_dim is not None
        return self.batch_dim

    def _has_rows(self, tensor: Tensor) -> bool:
        return self.batch_dim is not None and tensor.dim() > self.batch_dim

    def counts(self, tensor: Tensor, call: Call) -> bool:
        """Whether a tensor of this call has an entry for each of its rows."""
        counts = [other.shape[self._dim] for other in call.tensors if self._has_rows(other)]
        return self._has_rows(tensor) and bool(counts) and tensor.shape[self._dim] == counts[0]

    def _leaf(self, leaf: Tensor, rows: int, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(20_240_229 + seed)
        base = leaf.detach()
        if self.batched and self.counts(leaf, self.example):
            order = torch.arange(rows) % self.rows if seed < 7919 else torch.randint(0, self.rows, (rows,), generator=generator)
            base = base.index_select(self._dim, order.to(base.device))
            real = _every_second(base, self._dim)
        else:
            real = torch.full_like(base, seed < 7919, dtype=torch.bool)
        if self.variation is Variation.ROWS or base.numel() == 0 or base.dtype == torch.bool or base.is_complex():
            return base.clone()
        return torch.where(real, base, self._varied(base, leaf, generator))

    def _varied(self, base: Tensor, leaf: Tensor, generator: torch.Generator) -> Tensor:
        if not base.is_floating_point():
            return _integers(base, leaf, generator)
        values = base.float()
        other = values.roll(1, 0) if values.dim() else values
        weight = torch.rand(values.shape[:1] + (1,) * max(values.dim() - 1, 0), generator=generator)
        mixed = weight * values + (1 - weight) * other
        if self.variation is Variation.MIXED:
            return mixed.to(base.dtype)
        spread = float(values.std()) if values.numel() > 1 else 0.0
        noise = torch.randn(values.shape, generator=generator)
        rows = torch.arange(len(values)) if values.dim() else torch.ones(1, dtype=torch.long)
        scales = SCALES[rows % len(SCALES)].reshape(-1, *[1] * (values.dim() - 1)) if values.dim() else SCALES[1]
        return ((noise + 0.1 * noise.sign()) * scales * (spread if spread > 1e-6 else 1.0) + values.mean()).to(base.dtype)


def _every_second(base: Tensor, dim: int) -> Tensor:
    even = (torch.arange(base.shape[dim]) % 2 == 0).reshape([-1 if axis == dim else 1 for axis in range(base.dim())])
    return even.expand(base.shape)


def _integers(base: Tensor, leaf: Tensor, generator: torch.Generator) -> Tensor:
    if len(torch.unique(leaf)) <= MAX_MASK_VALUES:
        return base
    return torch.randint(int(leaf.min()), int(leaf.max()) + 1, base.shape, generator=generator).to(base.dtype)
