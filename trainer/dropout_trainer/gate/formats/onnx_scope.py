"""What is known of a value in an ONNX model before it runs: a constant, or why it may change."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import AttributeProto, FunctionProto, GraphProto, NodeProto, TensorProto, helper, numpy_helper

from dropout_trainer.gate.formats.onnx_place import plain

MAX_STEPS = 64
"""Identity and Cast nodes in a row."""
SCALARS = ("value_int", "value_float")


@dataclass(frozen=True)
class Constant:
    """A number that no caller can change."""

    value: Any


@dataclass(frozen=True)
class Unknown:
    """A value that a caller gives or the model computes."""

    why: str


Value = Constant | Unknown


@dataclass(frozen=True)
class Scope:
    """The names that a node sees: those of its graph, those of the graphs around it, and a function's arguments."""

    owner: GraphProto | FunctionProto
    outer: "Scope | None" = None
    given: dict[str, Value] = field(default_factory=dict)
    """A function's inputs at this call."""
    attributes: dict[str, AttributeProto] = field(default_factory=dict)
    """A function's attributes at this call, its own defaults included."""
    opset: int = 0

    # filled once: graphs are large and each Dropout asks
    initialisers: dict[str, TensorProto] = field(init=False)
    producers: dict[str, NodeProto] = field(init=False)
    inputs: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        graph = self.owner if isinstance(self.owner, GraphProto) else None
        object.__setattr__(self, "initialisers", {tensor.name: tensor for tensor in graph.initializer} if graph else {})
        object.__setattr__(self, "producers", {name: node for node in self.owner.node for name in node.output if name})
        object.__setattr__(self, "inputs", frozenset(value.name for value in graph.input) if graph else frozenset(self.owner.input))

    def inside(self, graph: GraphProto) -> "Scope":
        """The scope of a branch or a loop's body in this one."""
        return Scope(graph, self, attributes=self.attributes, opset=self.opset)

    def attribute(self, node: NodeProto, name: str) -> Any:
        """The attribute's value at this call; None where it is not given."""
        for attribute in node.attribute:
            if attribute.name == name:
                actual = self.attributes.get(attribute.ref_attr_name) if attribute.ref_attr_name else attribute
                return None if actual is None else helper.get_attribute_value(actual)
        return None

    def value(self, name: str, steps: int = 0) -> Value:
        """What is known of the value called `name`, followed through Identity and Cast."""
        if name in self.given:
            return self.given[name]
        if name in self.initialisers:
            if name in self.inputs:
                return Unknown(f"the initialiser '{plain(name)}', which is an input, too, so that a caller may replace it")
            return _number(self.initialisers[name], name)
        if name in self.inputs:
            return Unknown(f"the input '{plain(name)}'")
        node = self.producers.get(name)
        if node is None:
            return self.outer.value(name, steps) if self.outer else Unknown(f"the value '{plain(name)}', which is nowhere")
        return self._result(node, name, steps)

    def _result(self, node: NodeProto, name: str, steps: int) -> Value:
        if node.domain in ("", "ai.onnx") and steps < MAX_STEPS:
            if node.op_type == "Constant":
                return self._constant(node, name)
            if node.op_type == "Identity" and node.input:
                return self.value(node.input[0], steps + 1)
            if node.op_type == "Cast" and node.input:
                return _cast(self.value(node.input[0], steps + 1), self.attribute(node, "to"))
        return Unknown(f"the value '{plain(name)}', which {plain(node.op_type)} computes")

    def _constant(self, node: NodeProto, name: str) -> Value:
        tensor = self.attribute(node, "value")
        if isinstance(tensor, TensorProto):
            return _number(tensor, name)
        numbers = [number for scalar in SCALARS if (number := self.attribute(node, scalar)) is not None]
        return Constant(numbers[0]) if numbers else Unknown(f"the constant '{plain(name)}', which is no single number")


def _number(tensor: TensorProto, name: str) -> Value:
    if tensor.data_location == TensorProto.EXTERNAL or list(tensor.dims) not in ([], [1]):
        return Unknown(f"the constant '{plain(name)}', which is no single number in the model's file")
    try:
        return Constant(numpy_helper.to_array(tensor).reshape(-1)[0].item())
    except (ValueError, TypeError, IndexError):
        return Unknown(f"the constant '{plain(name)}', which cannot be read")


def _cast(value: Value, to: Any) -> Value:
    if not isinstance(value, Constant):
        return value
    try:
        return Constant(np.asarray(value.value).astype(helper.tensor_dtype_to_np_dtype(to)).item())
    except (KeyError, ValueError, TypeError, OverflowError):
        return Unknown("a constant, cast to a type that is none for it")
