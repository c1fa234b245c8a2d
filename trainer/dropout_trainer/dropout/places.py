"""Where a model holds a dropout rate: in layers and attributes of its own, and in what a plan has added.

Dropout that a forward calls as a function with a number of its own has no place, so no plan can name it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from dropout_api.dropout import DropoutAction, DropoutKind, Implementation
from dropout_trainer.dropout.added import ADDED, added_to
from dropout_trainer.dropout.drop_connect import DropConnect
from dropout_trainer.dropout.fast import FastDropout
from dropout_trainer.dropout.layers import EmbeddingDropout, SpatialDropout, StochasticDepth, VariationalDropout

ROOT = "(model)"
"""Name of the model itself."""
KINDS: tuple[tuple[tuple[type[nn.Module], ...], DropoutKind], ...] = (
    ((nn.AlphaDropout, nn.FeatureAlphaDropout), DropoutKind.ALPHA),
    ((nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, SpatialDropout), DropoutKind.SPATIAL),
    ((VariationalDropout,), DropoutKind.VARIATIONAL),
    ((EmbeddingDropout,), DropoutKind.EMBEDDING),
    ((StochasticDepth,), DropoutKind.STOCHASTIC_DEPTH),
    ((_DropoutNd,), DropoutKind.STANDARD),
)
ATTENTION = ("attention_dropout", "dropout_p")
"""Names under which modules around scaled_dot_product_attention keep their rate."""
BRANCHES = (("StochasticDepth", "p"), ("DropPath", "drop_prob"))
"""How the classes of stochastic depth in torchvision, timm and transformers end, and their attribute."""


@dataclass(frozen=True)
class Place:
    """One place that holds a rate."""

    layer: str
    kind: DropoutKind
    module: nn.Module
    attribute: str
    action: DropoutAction = DropoutAction.SET

    @property
    def type(self) -> str:
        name = type(self.module).__name__
        return name if isinstance(self.module, _DropoutNd) else f"{name}.{self.attribute}"

    @property
    def rate(self) -> float:
        return float(getattr(self.module, self.attribute) or 0.0)

    @property
    def implementation(self) -> Implementation:
        return Implementation.FAST if type(self.module) is FastDropout else Implementation.NATIVE

    @property
    def can_be_fast(self) -> bool:
        """A subclass may do more than torch's own class."""
        return type(self.module) in (nn.Dropout, FastDropout)

    def set(self, rate: float) -> None:
        setattr(self.module, self.attribute, rate)


def layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The model's modules by name, itself first, without what a plan has added."""
    for name, module in model.named_modules():
        if name.rpartition(".")[2] not in ADDED.values():
            yield name or ROOT, module


def sites(model: nn.Module) -> Iterator[Place]:
    """Every place of the model's own, in the order of its modules."""
    for name, module in layers(model):
        if found := _own(module):
            yield Place(name, found[0], module, found[1])


def places(model: nn.Module) -> Iterator[Place]:
    """The same with what a plan has added to each layer: first to its weights or output as a whole, then behind it."""
    for name, module in layers(model):
        if found := _own(module):
            yield Place(name, found[0], module, found[1])
        if isinstance(module, DropConnect):
            yield Place(name, DropoutKind.DROP_CONNECT, module, "drop_connect", DropoutAction.WRAP)
        for action, layer in added_to(module):
            yield Place(name, kind_of(layer), layer, "p", action)


def kind_of(layer: nn.Module) -> DropoutKind:
    """Of a dropout layer."""
    return next(kind for types, kind in KINDS if isinstance(layer, types))


def _own(module: nn.Module) -> tuple[DropoutKind, str] | None:
    """Kind and attribute of the rate that a module itself holds."""
    match module:
        case _DropoutNd():
            return kind_of(module), "p"
        case nn.MultiheadAttention():
            return DropoutKind.ATTENTION, "dropout"
        case nn.RNNBase():  # a single layer has no place between layers to drop anything
            return (DropoutKind.STANDARD, "dropout") if module.num_layers > 1 else None
    for ending, attribute in BRANCHES:
        if type(module).__name__.endswith(ending) and _is_rate(module, attribute):
            return DropoutKind.STOCHASTIC_DEPTH, attribute
    attribute = next((name for name in ATTENTION if _is_rate(module, name)), "")
    return (DropoutKind.ATTENTION, attribute) if attribute else None


def _is_rate(module: nn.Module, attribute: str) -> bool:
    value = vars(module).get(attribute)
    return isinstance(value, int | float) and not isinstance(value, bool)
