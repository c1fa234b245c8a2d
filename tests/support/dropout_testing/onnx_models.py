"""ONNX models made by hand, node by node, and exports that leave the network in the mode that it has."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto, helper
from torch import Tensor, nn

FLOAT, BOOL, INT64 = TensorProto.FLOAT, TensorProto.BOOL, TensorProto.INT64
X = helper.make_tensor_value_info("x", FLOAT, ["batch", 8])
Y = helper.make_tensor_value_info("y", FLOAT, None)
ON, OFF, RATIO, WEIGHT = (
    helper.make_tensor("on", BOOL, [], [True]), helper.make_tensor("off", BOOL, [], [False]), helper.make_tensor("ratio", FLOAT, [], [0.5]),
    helper.make_tensor("weight", FLOAT, [8], np.arange(1, 9, dtype=np.float32)),
)


def node(op: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> NodeProto:
    return helper.make_node(op, list(inputs), list(outputs), **attributes)


def graph(nodes: Sequence[NodeProto], constants: Sequence[TensorProto] = (), inputs: Sequence[Any] = (X,), outputs: Sequence[Any] = (Y,)) -> GraphProto:
    return helper.make_graph(list(nodes), "net", list(inputs), list(outputs), list(constants))


def model(body: GraphProto, opset: int = 20, functions: Sequence[FunctionProto] = (), ir: int = 10, domains: Sequence[str] = ()) -> ModelProto:
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in {*(f.domain for f in functions), *domains} - {""})]
    return helper.make_model(body, opset_imports=imports, functions=list(functions), ir_version=ir)


def function(name: str, nodes: Sequence[NodeProto], inputs: Sequence[str] = ("a",), outputs: Sequence[str] = ("b",), **others: Any) -> FunctionProto:
    """A function of domain `local`, with opset 20 and whatever domains its nodes call."""
    imports = [helper.make_opsetid("", 20), helper.make_opsetid("local", 1)]
    return helper.make_function("local", name, list(inputs), list(outputs), list(nodes), imports, **others)


def plain() -> ModelProto:
    """y = x · weight."""
    return model(graph([node("Mul", ["x", "weight"], ["y"], name="scale")], [WEIGHT]))


def write(path: Path, content: ModelProto | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
    return path


def export_as_is(network: nn.Module, example: tuple[Tensor, ...], path: Path) -> ModelProto:
    """What someone gets who exports without eval()."""
    batch = torch.export.Dim("batch", min=1)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(network, example, dynamic_shapes=tuple({0: batch} for _ in example))
        exported = torch.onnx.export(program, dynamo=True, external_data=False, verbose=False)
    assert exported is not None
    exported.save(path, external_data=False)
    return onnx.load(path)
