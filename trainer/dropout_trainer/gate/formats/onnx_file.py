"""Reads an ONNX file that nobody vouches for.

ONNX carries no code, so nothing runs here; what is left to a hostile file is to exhaust memory, to reach other files, to
name ops that only its author's libraries have, and to mean something else to the next runtime than to this one. Each is
refused before the onnx package's own checker, which is C++ and follows the file's word, sees it.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import onnx
from onnx import FunctionProto, GraphProto, ModelProto, TensorProto

from dropout_trainer.gate.formats import onnx_tensors, onnx_walk, onnx_wire
from dropout_trainer.gate.formats.onnx_walk import STANDARD, Key
from dropout_trainer.gate.formats.onnx_wire import REMEDY
from dropout_trainer.gate.verdict import RefusedError

MAX_FILE_BYTES = (2 << 30) - 1
"""What protobuf itself allows."""
MAX_NODES = 100_000
"""Nodes of a model once each call of a function is replaced by the function's body, as runtimes do."""
MAX_CALLS = 24
"""Functions that call each other, one inside the other."""
OPSETS = {"": onnx.defs.onnx_opset_version(), "ai.onnx.ml": onnx.defs.onnx_ml_opset_version()}
VERSION = "export with an opset that the verifier's onnx package knows"
CUSTOM = "use the ops of ONNX itself: runtimes' own ops and custom op libraries are not loaded"
OWN_DOMAIN = "give the function a domain of its own"
KEPT_BYTES = 1024
"""Tensors up to this size may be settings of nodes, such as a dropout's mode; larger ones are weights."""


@dataclass(frozen=True)
class OnnxFile:
    """A model that may be scanned and run."""

    path: Path
    model: ModelProto
    """The graph alone: a tensor larger than KEPT_BYTES is empty in it."""
    data: tuple[Path, ...]
    """The other files with its weights, all in the same folder or below. A digest of the model covers these, too."""


def load(path: Path) -> OnnxFile:
    """The model at `path`. Raises RefusedError, naming the part, when it is malformed, unsafe or beyond the limits; runs nothing."""
    model = _parse(path)
    _check_versions(model)
    _check_kinds(model)
    _check_functions(model)
    for owner in onnx_walk.everything(model):
        _check_names(owner)
    data = onnx_tensors.check(onnx_walk.tensors(model), path.parent)
    graph = _without_weights(model)
    _check_with_onnx(graph)
    return OnnxFile(path, graph, data)


def _parse(path: Path) -> ModelProto:
    if not path.is_file():
        raise RefusedError(f"{path.name} is no file", "name the .onnx file itself")
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise RefusedError(f"{path.name} has {size} bytes; {MAX_FILE_BYTES} are accepted", "keep the weights in a file beside it")
    content = path.read_bytes()
    onnx_wire.check(content)
    try:
        model = ModelProto.FromString(content)
    except Exception:  # protobuf's DecodeError, whose package comes with onnx and is not for others to import
        raise RefusedError(f"{path.name} is not a readable ONNX model", REMEDY) from None
    if not model.graph.node:
        raise RefusedError(f"{path.name} holds no graph with a node in it", REMEDY)
    return model


def _check_versions(model: ModelProto) -> None:
    if not 3 <= model.ir_version <= onnx.IR_VERSION:
        raise RefusedError(f"the model has IR version {model.ir_version}; 3 to {onnx.IR_VERSION} are known", VERSION)
    for owner in (model, *model.functions):
        imports = [onnx_walk.domain(entry.domain) for entry in owner.opset_import]
        _once(imports, "opset of domain")
        for entry in owner.opset_import:
            newest = OPSETS.get(onnx_walk.domain(entry.domain))
            if newest and not 1 <= entry.version <= newest:
                wanted = f"opset {entry.version} of {entry.domain or 'ai.onnx'}"
                raise RefusedError(f"the model asks for {wanted}; 1 to {newest} are known", VERSION)


def _check_kinds(model: ModelProto) -> None:
    """Nothing in the model is more than dense numbers and ops that every runtime has."""
    if model.training_info:
        raise RefusedError("the model carries training_info, a graph that trains it", "export the model for inference alone")
    known = onnx_walk.functions(model)
    for owner in onnx_walk.everything(model):
        if isinstance(owner, GraphProto) and owner.sparse_initializer:
            raise RefusedError("the model has sparse initialisers, whose size their data does not tell", "export it with dense weights")
        for node in owner.node:
            op = onnx_walk.op(node)
            if op.domain not in STANDARD and op not in known:
                raise RefusedError(f"the verifier has no op {op.name[:80]} of domain {op.domain[:80]!r} (node {node.name[:80]!r})", CUSTOM)
            if any(attribute.HasField("sparse_tensor") or attribute.sparse_tensors for attribute in node.attribute):
                raise RefusedError(f"node {node.name[:80]!r} holds a sparse tensor", "export the model with dense tensors")


def _check_functions(model: ModelProto) -> None:
    _once([f"{function.domain}.{function.name}.{function.overload}" for function in model.functions], "function")
    known = onnx_walk.functions(model)
    for key in known:
        if key.domain in STANDARD:
            raise RefusedError(f"function {key.name[:80]!r} has the domain of ONNX's own ops; runtimes differ in what they run", OWN_DOMAIN)
    sizes = _Sizes(known)
    for key in known:
        sizes.call(key)
    nodes = sizes.body(model.graph).nodes
    if nodes > MAX_NODES:
        raise RefusedError(f"the model has {nodes} nodes, its functions' at each call; {MAX_NODES} are accepted", "export a smaller model")


class _Size(NamedTuple):
    nodes: int
    depth: int
    """Calls inside each other."""


class _Sizes:
    """How large the model becomes once every call is replaced by the function's body: it may double with each function."""

    def __init__(self, functions: dict[Key, FunctionProto]) -> None:
        self.functions = functions
        self.known: dict[Key, _Size] = {}

    def body(self, owner: GraphProto | FunctionProto, trail: tuple[Key, ...] = ()) -> _Size:
        calls = [self.call(onnx_walk.op(node), trail) for graph in onnx_walk.graphs(owner) for node in graph.node]
        return _Size(len(calls) + sum(call.nodes for call in calls), max((call.depth for call in calls), default=0))

    def call(self, key: Key, trail: tuple[Key, ...] = ()) -> _Size:
        if key not in self.functions:
            return _Size(0, 0)
        if key in trail:
            raise RefusedError(f"function {str(key)[:80]!r} calls itself", "export the model without recursion")
        if key not in self.known and len(trail) < MAX_CALLS:
            nodes, depth = self.body(self.functions[key], (*trail, key))
            self.known[key] = _Size(nodes, depth + 1)
        if key not in self.known or self.known[key].depth > MAX_CALLS:
            raise RefusedError(f"function {str(key)[:80]!r} is called by more than {MAX_CALLS} others in a row", "export a flatter model")
        return self.known[key]


def _check_names(owner: GraphProto | FunctionProto) -> None:
    if isinstance(owner, GraphProto):
        _once((tensor.name for tensor in owner.initializer), "initialiser")
        _once((value.name for value in owner.input), "input")
    else:
        _once(owner.input, "input")
        _once((*owner.attribute, *(attribute.name for attribute in owner.attribute_proto)), "attribute")
    for node in owner.node:
        _once((attribute.name for attribute in node.attribute), f"node {node.name[:80]!r}: attribute")


def _once(names: Iterable[str], what: str) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise RefusedError(f"{what} {twice[0][:80]!r} is there twice, and runtimes differ in which one they take", REMEDY)


def _without_weights(model: ModelProto) -> ModelProto:
    """A copy of a few kilobytes, for all that is done with a model but to run it. Empties `model` itself."""
    for tensor in onnx_walk.tensors(model):
        if tensor.data_location == TensorProto.EXTERNAL or tensor.ByteSize() > KEPT_BYTES:
            tensor.CopyFrom(TensorProto(name=tensor.name, data_type=tensor.data_type, dims=[0]))
    graph = ModelProto()
    graph.CopyFrom(model)
    return graph


def _check_with_onnx(graph: ModelProto) -> None:
    try:
        onnx.checker.check_model(graph)
    except Exception as error:  # the checker raises its own errors and those of C++'s libraries
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise RefusedError(f"onnx {onnx.__version__} finds the model invalid ({lines[0][:300]})", REMEDY) from None
