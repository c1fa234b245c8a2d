"""Kinds of dropout for which torch has no module. In eval mode each is the identity and leaves no op in an exported program.

Their masks are torch's own dropout of a tensor of ones, so an exported MC-dropout program holds no other random op.
"""

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - as everyone writes it
from torch.nn.modules.dropout import _DropoutNd

SPATIAL = {3: F.dropout1d, 4: F.dropout2d, 5: F.dropout3d}
"""By dimensions of the input."""


class ShapeError(ValueError):
    """A layer's input has no such dimension as is to be dropped."""


class SpatialDropout(_DropoutNd):
    """Drops whole channels of [N, channels, ...] with one to three dimensions of space (Tompson et al., arXiv 1411.4280)."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        if input.dim() not in SPATIAL:
            raise ShapeError(f"Spatial dropout needs [N, channels, length, ...], but gets {list(input.shape)}; use kind Standard")
        return SPATIAL[input.dim()](input, self.p, self.training) if self.training else input


class VariationalDropout(_DropoutNd):
    """Drops the same features at every step of a sequence (Gal, Ghahramani, arXiv 1512.05287).

    Inputs [N, length, features]; with `time` 0 [length, N, features], as recurrent layers take them without batch_first.
    """

    def __init__(self, p: float = 0.5, time: int = 1) -> None:
        super().__init__(p)
        self.time = time

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        if input.dim() != 3:
            raise ShapeError(f"Variational dropout needs [N, length, features], but gets {list(input.shape)}; use kind Standard")
        if not self.training:
            return input
        rows, features = input.shape[1 - self.time], input.shape[2]
        return input * F.dropout(input.new_ones(rows, 1, features) if self.time else input.new_ones(1, rows, features), self.p)


class EmbeddingDropout(_DropoutNd):
    """Drops token types: a row of the embedding is either dropped or kept, wherever in the batch it stands (arXiv 1512.05287)."""

    def forward(self, embedded: Tensor, tokens: Tensor, types: int) -> Tensor:
        """`embedded` [..., features] of `tokens` [...], numbers below `types`."""
        if not self.training:
            return embedded
        return embedded * F.embedding(tokens, F.dropout(embedded.new_ones(types, 1), self.p))


class StochasticDepth(_DropoutNd):
    """Drops the whole of a residual branch for single rows of [N, ...] (Huang et al., arXiv 1603.09382).

    What is kept is divided by the probability to keep it, so that eval mode needs no scale. `rows`: the dimension that counts rows.
    """

    def __init__(self, p: float = 0.5, rows: int = 0) -> None:
        super().__init__(p)
        self.rows = rows

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        if not self.training:
            return input
        shape = [size if dimension == self.rows else 1 for dimension, size in enumerate(input.shape)]
        return input * F.dropout(torch.ones(shape, dtype=input.dtype, device=input.device), self.p)
