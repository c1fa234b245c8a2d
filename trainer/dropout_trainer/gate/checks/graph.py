"""No op of a program is in training mode: as it was exported, and in core ops, which show what composite ones hide."""

from typing import Any

from torch._ops import HigherOrderOperator, OpOverload
from torch.export import ExportedProgram
from torch.fx import Node

from dropout_api.verdict import CheckResult, Location
from dropout_trainer.gate.graph import calls, excerpt
from dropout_trainer.gate.ops import CUSTOM, NAMESPACES, NORM, Finding, is_dropout, live, named, op_name
from dropout_trainer.gate.target import Program
from dropout_trainer.gate.verdict import failed, passed

CONTROL_FLOW = frozenset(("cond", "while_loop", "map_impl", "scan", "associative_scan", "wrap_with_set_grad_enabled", "wrap_with_autocast",
                          "invoke_subgraph"))
PLAIN_MODULES = ("_operator", "math", "builtins", "torch", "torch.fx.experimental.symbolic_shapes", "torch.fx.experimental.sym_node")


def graph(name: str, program: Program, strangers: bool = False) -> CheckResult:
    """No op of the program as it was exported is in training mode. `strangers`: whether other libraries' ops are let through."""
    return _scan(name, program.program, strangers)


def decomposed_graph(name: str, program: Program, strangers: bool = False) -> CheckResult:
    """The same after decomposition, and that no buffer is written."""
    decomposed = program.decomposed
    written = sorted(set(decomposed.graph_signature.buffers_to_mutate.values()))
    if written:
        where = Location(layer=written[0].rpartition(".")[0] or "the model", op="copy_")
        return failed(name, f"the program writes to buffer '{written[0]}' at each call", NORM, where)
    return _scan(name, decomposed, strangers)


def _scan(name: str, program: ExportedProgram, strangers: bool) -> CheckResult:
    findings: list[tuple[Finding, Node, Location]] = []
    count = 0
    for node, where in calls(program):
        count += 1
        finding = inspect(node, strangers)
        if finding:
            findings.append((finding, node, where))
    if not findings:
        return passed(name, f"{count} ops, none in training mode")
    (what, remedy), node, where = findings[0]
    more = f" (and {len(findings) - 1} more such ops)" if len(findings) > 1 else ""
    return failed(name, f"{what} in layer '{where.layer}' ({where.source}){more}", remedy, where, excerpt(node))


def inspect(node: Node, strangers: bool = False) -> Finding | None:
    """What is wrong with the op and what to do about it; None when it behaves the same at each call."""
    target: Any = node.target
    if isinstance(target, OpOverload):
        if target.namespace in NAMESPACES or strangers:
            return live(target, named(target, node.args, node.kwargs))
        return f"{op_name(target)} is an op of another library", CUSTOM
    if isinstance(target, HigherOrderOperator):
        known = str(target) in CONTROL_FLOW or strangers
        return None if known else (f"the higher-order op {target} is not known to be in eval mode", CUSTOM)
    if node.op == "call_function" and getattr(target, "__module__", "") in PLAIN_MODULES:
        return None
    return None if strangers else (f"the call of {str(target)[:80]} is none of an operator", CUSTOM)


def live_dropouts(program: Program) -> tuple[list[tuple[Node, Location]], list[tuple[Finding, Node, Location]]]:
    """The ops that are dropout and on, and whatever else is in training mode."""
    dropouts, others = [], []
    for node, where in calls(program.program):
        finding = inspect(node)
        if finding and isinstance(node.target, OpOverload) and is_dropout(node.target, named(node.target, node.args, node.kwargs)):
            dropouts.append((node, where))
        elif finding:
            others.append((finding, node, where))
    return dropouts, others
