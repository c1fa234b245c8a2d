"""The built-in model factories. They make what the data imply: the first layer's width and the number of classes."""

from collections import OrderedDict

from torch import nn

from dropout_api.builtins.models import CnnArguments, MlpArguments


def mlp(arguments: MlpArguments, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """Linear, ReLU and dropout for each hidden width. Inputs [N, ...] of float32, logits [N, num_classes]."""
    width = 1
    for size in input_shape:
        width *= size
    blocks: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    for number, hidden in enumerate(arguments.hidden, 1):
        blocks[f"hidden{number}"] = nn.Sequential(
            OrderedDict(linear=nn.Linear(width, hidden), relu=nn.ReLU(), dropout=nn.Dropout(arguments.dropout))
        )
        width = hidden
    blocks["output"] = nn.Linear(width, num_classes)
    return nn.Sequential(blocks)


def cnn(arguments: CnnArguments, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """Blocks that halve the image while it can be halved, then a dense layer.

    Inputs [N, channels, height, width] of float32, logits [N, num_classes]. Its dropout layers are called
    `features.block1.dropout` and so on, and `classifier.dropout`. Raises ValueError for inputs that are no images.
    """
    if len(input_shape) != 3:
        raise ValueError(f"cnn needs images of [channels, height, width], but a row of the data is {list(input_shape)}; use mlp")
    channels, height, width = input_shape
    features: OrderedDict[str, nn.Module] = OrderedDict()
    for number, wider in enumerate(arguments.channels, 1):
        halve = min(height, width) >= 2
        features[f"block{number}"] = _block(channels, wider, halve, arguments.spatial_dropout)
        channels, height, width = wider, height // (1 + halve), width // (1 + halve)
    classifier = nn.Sequential(OrderedDict(
        flatten=nn.Flatten(), dense=nn.Linear(channels * height * width, arguments.dense), relu=nn.ReLU(),
        dropout=nn.Dropout(arguments.dropout), output=nn.Linear(arguments.dense, num_classes),
    ))
    return nn.Sequential(OrderedDict(features=nn.Sequential(features), classifier=classifier))


def _block(channels: int, wider: int, halve: bool, dropout: float) -> nn.Module:
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv=nn.Conv2d(channels, wider, 3, padding=1, bias=False), norm=nn.BatchNorm2d(wider), relu=nn.ReLU()
    )
    if halve:
        layers["pool"] = nn.MaxPool2d(2)
    layers["dropout"] = nn.Dropout2d(dropout)
    return nn.Sequential(layers)
