"""Dropout that draws its masks from 64-bit random words, four elements a word.

torch draws a number for each element, which on a CPU takes several times as long as the matrix product beside it. Sixteen bits are
enough to tell keep from drop at any rate in 1/65536; kept elements are divided by the very probability that results, so the mean is
exact (Srivastava et al., JMLR 15, 2014).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - as everyone writes it

STEPS = 1 << 16
"""Values of a lane of sixteen bits."""
LANES = 4
"""Lanes of a word."""
LOWEST_WORD = -(1 << 63)
LOWEST_LANE = -(1 << 15)
ROUNDED = (torch.float16, torch.bfloat16)
"""Types in which 1 / keep would itself be rounded, by up to 0.4 %, and with it the mean."""


class FastDropout(nn.Dropout):
    """nn.Dropout with masks of its own in training: one seed gives others than torch's. In eval mode, when compiled or exported,
    and at rates that sixteen bits cannot tell from 0 or 1 it is nn.Dropout itself.

    Inputs of any shape and floating type; the mask depends on their shape and on torch's default generator of their device alone.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        return fast_dropout(input, self.p, self.training, self.inplace)


def fast_dropout(input: Tensor, p: float, training: bool = True, inplace: bool = False) -> Tensor:  # noqa: A002 - torch's name
    """As torch.nn.functional.dropout, with each element kept with probability round((1 − p) × 65536) / 65536, and then divided by it.

    Raises ValueError for p outside 0 to 1, as torch does.
    """
    kept = round((1 - p) * STEPS)
    traced = torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]
    if not training or not 0 < kept < STEPS or traced:
        return F.dropout(input, p, training, inplace)
    mask = _lanes(input).lt_(kept + LOWEST_LANE)
    if inplace or input.dtype in ROUNDED:
        return (input.mul_(mask) if inplace else input * mask).mul_(STEPS / kept)
    return input * mask.to(input.dtype).mul_(STEPS / kept)


def _lanes(like: Tensor) -> Tensor:
    """Random int16, all values equally likely, in the shape of `like`."""
    words = torch.empty(-(-like.numel() // LANES), dtype=torch.int64, device=like.device)
    words.random_(LOWEST_WORD, None)  # without a lower bound torch leaves the sign bit at 0, and every fourth lane with it
    return words.view(torch.int16)[: like.numel()].view(like.shape)
