"""Goes through all parts of an ONNX model: the graphs inside its nodes and the bodies of its functions included."""

from collections.abc import Iterator
from typing import NamedTuple

from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto

STANDARD = ("", "ai.onnx.ml")


class Key(NamedTuple):
    """What a node's op, or a function, is found by."""

    domain: str
    name: str
    overload: str

    def __str__(self) -> str:
        return f"{self.domain}.{self.name}" if self.domain else self.name


def domain(name: str) -> str:
    """The standard domain has two names."""
    return "" if name == "ai.onnx" else name


def op(node: NodeProto) -> Key:
    return Key(domain(node.domain), node.op_type, node.overload)


def functions(model: ModelProto) -> dict[Key, FunctionProto]:
    return {Key(domain(function.domain), function.name, function.overload): function for function in model.functions}


def attributes(owner: NodeProto | FunctionProto) -> Iterator[AttributeProto]:
    """The node's attributes, or the defaults of a function's."""
    yield from owner.attribute if isinstance(owner, NodeProto) else owner.attribute_proto


def subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    """The branches and loop bodies that a node holds."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def graphs(owner: GraphProto | FunctionProto) -> Iterator[GraphProto | FunctionProto]:
    """The graph or function itself and every graph inside it."""
    yield owner
    for node in owner.node:
        for inner in subgraphs(node):
            yield from graphs(inner)


def everything(model: ModelProto) -> Iterator[GraphProto | FunctionProto]:
    """All graphs and functions of the model."""
    for owner in (model.graph, *model.functions):
        yield from graphs(owner)


def nodes(model: ModelProto) -> Iterator[NodeProto]:
    for owner in everything(model):
        yield from owner.node


def tensors(model: ModelProto) -> Iterator[TensorProto]:
    """Initialisers of all graphs and tensors in attributes."""
    for owner in everything(model):
        if isinstance(owner, GraphProto):
            yield from owner.initializer
        else:
            yield from _tensors_of(owner)
        for node in owner.node:
            yield from _tensors_of(node)


def _tensors_of(owner: NodeProto | FunctionProto) -> Iterator[TensorProto]:
    for attribute in attributes(owner):
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
