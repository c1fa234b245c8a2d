"""A residual network with stochastic depth."""

from collections import OrderedDict

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - as everyone writes it

from dropout_api.builtins.models import ResnetArguments
from dropout_trainer.dropout.layers import StochasticDepth
from dropout_trainer.models.interface import Interface, require_floats, require_images


class Residual(nn.Module):
    """Two convolutions beside a shortcut (He et al., arXiv 1512.03385), dropped as a whole by row (Huang et al., arXiv 1603.09382)."""

    def __init__(self, channels: int, wider: int, stride: int, drop: float) -> None:
        super().__init__()
        self.branch = nn.Sequential(OrderedDict(
            conv1=nn.Conv2d(channels, wider, 3, stride, padding=1, bias=False), norm1=nn.BatchNorm2d(wider), relu=nn.ReLU(),
            conv2=nn.Conv2d(wider, wider, 3, padding=1, bias=False), norm2=nn.BatchNorm2d(wider),
        ))
        self.stochastic_depth = StochasticDepth(drop)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != wider:
            self.shortcut = nn.Sequential(OrderedDict(
                conv=nn.Conv2d(channels, wider, 1, stride, bias=False), norm=nn.BatchNorm2d(wider),
            ))

    def forward(self, inputs: Tensor) -> Tensor:
        return F.relu(self.shortcut(inputs) + self.stochastic_depth(self.branch(inputs)))


class MeanOverImage(nn.Module):
    """[N, channels, height, width] to [N, channels]."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.mean((2, 3))


def resnet(arguments: ResnetArguments, seen: Interface) -> nn.Module:
    """A convolution, stages of residual blocks, the mean over the image, dropout, a linear layer.

    Inputs [N, channels, height, width] of float32. A stage after the first halves the image while it can be halved. Its dropout layers are
    called `stage1.block1.stochastic_depth` and so on, and `dropout`. Raises ValueError for inputs that are no images.
    """
    require_floats("resnet", seen)
    channels, height, width = require_images("resnet", seen.input_shape, "mlp")
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if first := seen.standardise():
        layers["standardise"] = first
    layers["stem"] = nn.Sequential(OrderedDict(
        conv=nn.Conv2d(channels, arguments.width, 3, padding=1, bias=False), norm=nn.BatchNorm2d(arguments.width), relu=nn.ReLU(),
    ))
    channels, side, number = arguments.width, min(height, width), 0
    for stage, blocks in enumerate(arguments.blocks):
        wider, stride = arguments.width * 2**stage, 2 if stage and side >= 2 else 1
        drops = [drop_rate(arguments, number + block) for block in range(1, blocks + 1)]
        layers[f"stage{stage + 1}"] = _stage(channels, wider, stride, drops)
        channels, side, number = wider, (side + stride - 1) // stride, number + blocks
    layers |= {"pool": MeanOverImage(), "dropout": nn.Dropout(arguments.dropout), "output": nn.Linear(channels, seen.outputs)}
    if last := seen.rescale():
        layers["rescale"] = last
    return nn.Sequential(layers)


def drop_rate(arguments: ResnetArguments, block: int) -> float:
    """Of the block with this number, from 1: in a line from 0 before the first to `stochastic_depth` at the last."""
    return arguments.stochastic_depth * block / sum(arguments.blocks)


def _stage(channels: int, wider: int, stride: int, drops: list[float]) -> nn.Module:
    return nn.Sequential(OrderedDict(
        (f"block{number}", Residual(wider if number > 1 else channels, wider, 1 if number > 1 else stride, drop))
        for number, drop in enumerate(drops, 1)
    ))
