"""ONNX models made by hand, node by node: y = f(x), x [batch, 8], with a Dropout named `drop` where one is asked for."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

FLOAT, BOOL, INT64 = TensorProto.FLOAT, TensorProto.BOOL, TensorProto.INT64
LOCAL = "local"
"""The domain of the models' own functions."""


def value(name: str, kind: int = FLOAT, shape: Sequence[Any] = ("batch", 8)) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, list(shape))


def tensor(name: str, kind: int, content: Any, shape: Sequence[int] = ()) -> TensorProto:
    return helper.make_tensor(name, kind, list(shape), [content] if not shape else content)


X, Y = value("x"), value("y")
WEIGHT = tensor("weight", FLOAT, np.arange(1, 9, dtype=np.float32), [8])
CONSTANTS = (tensor("on", BOOL, True), tensor("off", BOOL, False), tensor("half", FLOAT, 0.5), tensor("zero", FLOAT, 0.0))
"""What every graph of `net` may use."""


def node(op: str, inputs: str = "", outputs: str = "y", **attributes: Any) -> NodeProto:
    """Inputs and outputs are names, divided by spaces; `_` is one that is left out."""
    given = ["" if name == "_" else name for name in inputs.split()]
    return helper.make_node(op, given, outputs.split(), **attributes)


def dropout(mode: str = "on", x: str = "x", y: str = "y", ratio: str = "half") -> NodeProto:
    return node("Dropout", f"{x} {ratio} {mode}", y, name="drop")


def graph(nodes: Sequence[NodeProto], inputs: Sequence[ValueInfoProto] = (), outputs: Sequence[ValueInfoProto] = (Y,),
          constants: Sequence[TensorProto] = ()) -> GraphProto:
    return helper.make_graph(list(nodes), "net", list(inputs), list(outputs), list(constants))


def model(body: GraphProto, opset: int = 20, functions: Sequence[FunctionProto] = ()) -> ModelProto:
    imports = [helper.make_opsetid("", opset), helper.make_opsetid(LOCAL, 1)]
    return helper.make_model(body, opset_imports=imports, functions=list(functions), ir_version=10)


def net(*nodes: NodeProto, inputs: Sequence[ValueInfoProto] = (), opset: int = 20, functions: Sequence[FunctionProto] = (),
        constants: Sequence[TensorProto] = ()) -> ModelProto:
    """The model of these nodes, with `inputs` besides x."""
    return model(graph(nodes, (X, *inputs), constants=(*CONSTANTS, WEIGHT, *constants)), opset, functions)


def function(name: str, *nodes: NodeProto, inputs: str = "a", attributes: Sequence[Any] = ()) -> FunctionProto:
    """b = name(inputs)."""
    imports = [helper.make_opsetid("", 20), helper.make_opsetid(LOCAL, 1)]
    return helper.make_function(LOCAL, name, inputs.split(), ["b"], list(nodes), imports, attribute_protos=list(attributes))


def plain() -> ModelProto:
    """y = x · weight."""
    return net(node("Mul", "x weight", name="scale"))


def branch(mode: str, *before: NodeProto) -> ModelProto:
    """Dropout in one branch of an If on the input `cond`."""
    then = graph([*before, dropout(mode, y="then")], outputs=[value("then")])
    other = graph([node("Identity", "x", "other")], outputs=[value("other")])
    return net(node("If", "cond", name="choice", then_branch=then, else_branch=other), inputs=[value("cond", BOOL, ())])


def loop(mode: str) -> ModelProto:
    """Dropout in a loop of three steps."""
    body = graph([node("Identity", "go", "go_on"), dropout(mode, "a", "b")],
                 [value("i", INT64, ()), value("go", BOOL, ()), value("a")], [value("go_on", BOOL, ()), value("b")])
    return net(node("Loop", "three _ x", name="steps", body=body), constants=[tensor("three", INT64, 3)])


def called(mode: str) -> ModelProto:
    """Dropout in a function, with the mode that its caller gives."""
    drop = function("Drop", node("Dropout", "a r m", "b"), inputs="a r m")
    return net(node("Drop", f"x half {mode}", domain=LOCAL, name="call"), functions=[drop])


def called_twice_removed(mode: str) -> ModelProto:
    """The same in a function that another function calls."""
    outer = function("Outer", node("Identity", "n", "same"), node("Inner", "a r same", "b", domain=LOCAL), inputs="a r n")
    inner = function("Inner", node("Dropout", "a r m", "b"), inputs="a r m")
    return net(node("Outer", f"x half {mode}", domain=LOCAL, name="call"), functions=[outer, inner])


def called_with(**training: int) -> ModelProto:
    """Dropout in a function that has its mode as an attribute, 0 by default."""
    default = helper.make_attribute("training", 0)
    mode = node("Constant", outputs="number")
    mode.attribute.append(AttributeProto(name="value_int", ref_attr_name="training", type=AttributeProto.INT))
    body = [mode, node("Cast", "number", "m", to=BOOL), node("Constant", outputs="r", value_float=0.3), node("Dropout", "a r m", "b")]
    return net(node("Drop", "x", domain=LOCAL, name="call", **training), functions=[function("Drop", *body, attributes=[default])])


def norm(opset: int, outputs: str = "y", **attributes: int) -> ModelProto:
    constants = [tensor(name, FLOAT, [1.0] * 8, [8]) for name in ("scale", "bias", "mean", "var")]
    made = node("BatchNormalization", "x scale bias mean var", outputs, name="norm", **attributes)
    return net(made, opset=opset, constants=constants)


def write(path: Path, content: ModelProto | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
    return path
