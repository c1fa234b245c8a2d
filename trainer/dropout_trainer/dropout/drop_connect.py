"""DropConnect: dropout of weights (Wan et al., ICML 2013); of recurrent layers of the hidden-to-hidden ones, one mask for all steps
of a sequence (Merity et al., arXiv 1708.02182).

A layer gets a subclass of its own class, so its parameters keep their names and their place, and a state dict stays what it was.
"""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - as everyone writes it


class DropConnect(nn.Module):
    """What has `drop_connect`: the probability that a weight is zeroed in training, 0 to 1."""

    drop_connect: float = 0.0

    def dropped(self, weight: Tensor) -> Tensor:
        return F.dropout(weight, self.drop_connect) if self.training and self.drop_connect else weight


class DropConnectLinear(DropConnect, nn.Linear):
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        return F.linear(input, self.dropped(self.weight), self.bias)


class _DropConnectConv(DropConnect, nn.modules.conv._ConvNd):
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        return self._conv_forward(input, self.dropped(self.weight), self.bias)


class DropConnectConv1d(_DropConnectConv, nn.Conv1d):
    """nn.Conv1d."""


class DropConnectConv2d(_DropConnectConv, nn.Conv2d):
    """nn.Conv2d."""


class DropConnectConv3d(_DropConnectConv, nn.Conv3d):
    """nn.Conv3d."""


class _DropConnectRecurrent(DropConnect, nn.RNNBase):
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """torch's own forward reads its weights from this list alone, which is not what a state dict or an optimiser reads."""
        weights = self._flat_weights
        names = self._flat_weights_names
        self._flat_weights = [
            self.dropped(weight) if weight is not None and name.startswith("weight_hh") else weight
            for name, weight in zip(names, weights, strict=True)
        ]
        try:
            return super().forward(*args, **kwargs)
        finally:
            self._flat_weights = weights


class DropConnectLSTM(_DropConnectRecurrent, nn.LSTM):
    """nn.LSTM."""


class DropConnectGRU(_DropConnectRecurrent, nn.GRU):
    """nn.GRU."""


class DropConnectRNN(_DropConnectRecurrent, nn.RNN):
    """nn.RNN."""


CLASSES: dict[type[nn.Module], type[DropConnect]] = {
    nn.Linear: DropConnectLinear, nn.Conv1d: DropConnectConv1d, nn.Conv2d: DropConnectConv2d, nn.Conv3d: DropConnectConv3d,
    nn.LSTM: DropConnectLSTM, nn.GRU: DropConnectGRU, nn.RNN: DropConnectRNN,
}
"""What can be wrapped. Exactly these: a subclass may use its weights otherwise."""
