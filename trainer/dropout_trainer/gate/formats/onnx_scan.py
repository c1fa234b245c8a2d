"""Looks in an ONNX model for behaviour that belongs to training: dropout that is on, batch statistics, random draws.

Dropout's mode became an input with opset 12, so it may come from anywhere: only a constant that nobody can replace
counts as off. Functions are read anew for each call, with that call's arguments. Nodes whose results nobody uses count
too: onnxruntime deletes them, and other runtimes need not.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from onnx import FunctionProto, ModelProto, NodeProto

from dropout_api.verdict import CheckResult, Location
from dropout_trainer.gate.formats import onnx_walk
from dropout_trainer.gate.formats.onnx_place import excerpt, location
from dropout_trainer.gate.formats.onnx_scope import Constant, Scope, Unknown, Value
from dropout_trainer.gate.verdict import failed, passed

NAME = "onnx_graph"
DROPOUT = "export after eval(); write F.dropout(x, p, training=self.training) where the functional form is used"
INPUT = "export after eval(), with the mode fixed: whoever serves the model must not be able to switch dropout on"
NORM = "track running statistics (track_running_stats=True) and export after eval()"
RANDOM = "draw random numbers only while self.training is true, and export after eval()"
RANDOM_OPS = frozenset(("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial"))

Finding = tuple[str, str]
Rule = Callable[[NodeProto, Scope], Finding | None]


@dataclass(frozen=True)
class Visit:
    """A node where it runs: its number in its graph, the names that it sees, its place in the network."""

    node: NodeProto
    number: int
    scope: Scope
    where: Location


def scan(model: ModelProto) -> CheckResult:
    """No node of the model is in training mode. The model is one that `onnx_file.load` accepted."""
    count = 0
    findings: list[tuple[Finding, Visit]] = []
    for visit in visits(model):
        count += 1
        finding = inspect(visit.node, visit.scope)
        if finding:
            findings.append((finding, visit))
    if not findings:
        return passed(NAME, f"{count} nodes, none in training mode")
    (what, remedy), visit = findings[0]
    more = f" (and {len(findings) - 1} more such nodes)" if len(findings) > 1 else ""
    evidence = f"{what} in layer '{visit.where.layer}' ({visit.where.source}){more}"
    return failed(NAME, evidence, remedy, visit.where, excerpt(visit.scope.owner.node, visit.number))


def visits(model: ModelProto) -> Iterator[Visit]:
    """Every node of the graph, its subgraphs and the functions that it calls, once for each call; then functions without a call."""
    reader = _Reader(model)
    yield from reader.nodes(Scope(model.graph, opset=_opset(model)), None)
    for key, function in reader.functions.items():
        if key not in reader.called:
            yield from reader.nodes(Scope(function, attributes=_defaults(function), opset=_opset(function) or _opset(model)), None)


class _Reader:
    def __init__(self, model: ModelProto) -> None:
        self.functions = onnx_walk.functions(model)
        self.called: set[onnx_walk.Key] = set()

    def nodes(self, scope: Scope, holder: Location | None) -> Iterator[Visit]:
        for number, node in enumerate(scope.owner.node):
            where = location(node, holder)
            yield Visit(node, number, scope, where)
            for graph in onnx_walk.subgraphs(node):
                yield from self.nodes(scope.inside(graph), where)
            key = onnx_walk.op(node)
            if key in self.functions:
                self.called.add(key)
                yield from self.nodes(_call(self.functions[key], node, scope), where)


def _call(function: FunctionProto, node: NodeProto, scope: Scope) -> Scope:
    """The scope of the function's body when `node` calls it."""
    arguments = [scope.value(name) if name else Unknown("an input that is left out") for name in node.input]
    attributes = _defaults(function)
    for attribute in node.attribute:
        actual = scope.attributes.get(attribute.ref_attr_name) if attribute.ref_attr_name else attribute
        if actual is not None:
            attributes[attribute.name] = actual
    given: dict[str, Value] = dict(zip(function.input, arguments, strict=False))
    return Scope(function, given=given, attributes=attributes, opset=_opset(function) or scope.opset)


def _defaults(function: FunctionProto) -> dict[str, Any]:
    return {attribute.name: attribute for attribute in function.attribute_proto}


def _opset(owner: ModelProto | FunctionProto) -> int:
    return max((entry.version for entry in owner.opset_import if onnx_walk.domain(entry.domain) == ""), default=0)


def inspect(node: NodeProto, scope: Scope) -> Finding | None:
    """What is wrong with the node and what to do about it; None when it answers the same at each call."""
    if onnx_walk.domain(node.domain):
        return None
    if node.op_type in RANDOM_OPS:
        return f"onnx.{node.op_type} draws random numbers", RANDOM
    rule = RULES.get(node.op_type)
    return rule(node, scope) if rule else None


def _dropout(node: NodeProto, scope: Scope) -> Finding | None:
    ratio = _ratio(node, scope)
    if ratio == Constant(0.0):
        return None
    told = f", ratio={ratio.value:.3g}" if isinstance(ratio, Constant) else ""
    if scope.opset < 7:
        off = scope.attribute(node, "is_test")
        return None if off else (f"onnx.Dropout (is_test=0{told}): dropout is on", DROPOUT)
    if scope.opset < 12 or len(node.input) < 3 or not node.input[2]:
        return None
    mode = scope.value(node.input[2])
    if isinstance(mode, Unknown):
        return f"onnx.Dropout (training_mode is {mode.why}{told}): dropout can be on", INPUT
    return (f"onnx.Dropout (training_mode=true{told}): dropout is on", DROPOUT) if mode.value else None


def _ratio(node: NodeProto, scope: Scope) -> Value:
    if scope.opset >= 12:
        return scope.value(node.input[1]) if len(node.input) > 1 and node.input[1] else Constant(0.5)
    given = scope.attribute(node, "ratio")
    return Constant(0.5 if given is None else given)


def _batch_norm(node: NodeProto, scope: Scope) -> Finding | None:
    outputs = sum(bool(name) for name in node.output)
    mode = "training_mode=1" if scope.attribute(node, "training_mode") else ""
    if scope.opset < 7 and not scope.attribute(node, "is_test"):
        mode = "is_test=0"
    elif not mode and outputs > 1:
        mode = f"{outputs} outputs, which only training has"
    return (f"onnx.BatchNormalization ({mode}): it normalises by the batch at hand", NORM) if mode else None


RULES: dict[str, Rule] = {"Dropout": _dropout, "BatchNormalization": _batch_norm}


