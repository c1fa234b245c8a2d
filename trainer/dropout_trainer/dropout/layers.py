"""Dropout layers that torch does not have."""

from torch import Tensor, nn


class StochasticDepth(nn.Module):
    """Drops a residual branch, row by row, with probability `p`; what stays is scaled by 1 / (1 − p) (Huang et al., arXiv 1603.09382)."""

    def __init__(self, p: float = 0.1) -> None:
        super().__init__()
        self.p = p

    def forward(self, inputs: Tensor) -> Tensor:
        """`inputs` [N, ...]; the same in eval mode."""
        if not self.training or self.p == 0:
            return inputs
        keep = 1 - self.p
        shape = (inputs.shape[0], *[1] * (inputs.dim() - 1))  # len() would fix the batch size of an exported program
        return inputs * (inputs.new_empty(shape).bernoulli_(keep) / keep)

    def extra_repr(self) -> str:
        return f"p={self.p}"
