"""A plain convolutional network."""

from collections import OrderedDict

from torch import nn

from dropout_api.builtins.models import CnnArguments
from dropout_trainer.models.interface import Interface, require_floats, require_images


def cnn(arguments: CnnArguments, seen: Interface) -> nn.Module:
    """Blocks that halve the image while it can be halved, then a dense layer.

    Inputs [N, channels, height, width] of float32. Its dropout layers are called `features.block1.dropout` and so on, and
    `classifier.dropout`. Raises ValueError for inputs that are no images.
    """
    require_floats("cnn", seen)
    channels, height, width = require_images("cnn", seen.input_shape, "mlp")
    features: OrderedDict[str, nn.Module] = OrderedDict()
    for number, wider in enumerate(arguments.channels, 1):
        halve = min(height, width) >= 2
        features[f"block{number}"] = _block(channels, wider, halve, arguments.spatial_dropout)
        channels, height, width = wider, height // (1 + halve), width // (1 + halve)
    classifier = nn.Sequential(OrderedDict(
        flatten=nn.Flatten(), dense=nn.Linear(channels * height * width, arguments.dense), relu=nn.ReLU(),
        dropout=nn.Dropout(arguments.dropout), output=nn.Linear(arguments.dense, seen.outputs),
    ))
    ends = {"standardise": seen.standardise(), "features": nn.Sequential(features), "classifier": classifier, "rescale": seen.rescale()}
    return nn.Sequential(OrderedDict((name, part) for name, part in ends.items() if part is not None))


def _block(channels: int, wider: int, halve: bool, dropout: float) -> nn.Module:
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv=nn.Conv2d(channels, wider, 3, padding=1, bias=False), norm=nn.BatchNorm2d(wider), relu=nn.ReLU()
    )
    if halve:
        layers["pool"] = nn.MaxPool2d(2)
    layers["dropout"] = nn.Dropout2d(dropout)
    return nn.Sequential(layers)
