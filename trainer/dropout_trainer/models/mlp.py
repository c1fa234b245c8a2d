"""A multilayer perceptron."""

import math
from collections import OrderedDict

from torch import nn

from dropout_api.builtins.models import MlpArguments
from dropout_trainer.models.interface import Interface, require_floats

ACTIVATIONS: dict[str, type[nn.Module]] = {"ReLU": nn.ReLU, "GELU": nn.GELU, "SELU": nn.SELU}


def mlp(arguments: MlpArguments, seen: Interface) -> nn.Module:
    """Linear, activation and dropout for each hidden width. Inputs [N, ...] of float32.

    With SELU dropout is alpha dropout, and weights start with a variance of 1 / inputs, without which it does not normalise (Klambauer et
    al., arXiv 1706.02515). Raises ValueError for token numbers.
    """
    require_floats("mlp", seen)
    blocks: OrderedDict[str, nn.Module] = OrderedDict()
    if first := seen.standardise():
        blocks["standardise"] = first
    blocks["flatten"] = nn.Flatten()
    width = math.prod(seen.input_shape)
    for number, hidden in enumerate(arguments.hidden, 1):
        blocks[f"hidden{number}"] = _block(width, hidden, arguments)
        width = hidden
    blocks["output"] = nn.Linear(width, seen.outputs)
    if last := seen.rescale():
        blocks["rescale"] = last
    return nn.Sequential(blocks)


def _block(width: int, hidden: int, arguments: MlpArguments) -> nn.Module:
    linear = nn.Linear(width, hidden)
    selu = arguments.activation == "SELU"
    if selu:
        nn.init.normal_(linear.weight, std=width**-0.5)
        nn.init.zeros_(linear.bias)
    dropout = nn.AlphaDropout if selu else nn.Dropout
    return nn.Sequential(OrderedDict(
        linear=linear, activation=ACTIVATIONS[arguments.activation](), dropout=dropout(arguments.dropout),
    ))
