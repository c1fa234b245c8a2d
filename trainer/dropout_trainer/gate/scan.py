"""Reads the program's ops for behaviour that belongs to training: dropout that is on, batch statistics, random draws.

Names alone are a false alarm (an eval program still contains aten.dropout with train=False), so the arguments decide;
what draws random numbers is known by torch's own tag nondeterministic_seeded, which covers ops that no list would.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch._ops import HigherOrderOperator, OpOverload
from torch.export import ExportedProgram
from torch.fx import Node

from dropout_trainer.gate.graph import arguments, calls, op_name
from dropout_trainer.gate.program import Subject
from dropout_trainer.gate.verdict import CheckResult, Location, failed, passed

NAMESPACES = ("aten", "prims")
CONTROL_FLOW = frozenset(("cond", "while_loop", "map_impl", "scan", "associative_scan", "wrap_with_set_grad_enabled", "wrap_with_autocast",
                          "invoke_subgraph"))
PLAIN_MODULES = ("_operator", "math", "builtins", "torch", "torch.fx.experimental.symbolic_shapes", "torch.fx.experimental.sym_node")

DROPOUT = "use nn.Dropout, or pass training=self.training to the functional form, and export after eval()"
ATTENTION = "pass dropout_p=self.p if self.training else 0.0: scaled_dot_product_attention knows no mode"
RECURRENT = "call eval() before the export and keep the layer registered as a submodule, so that eval() reaches it"
NORM = "track running statistics (track_running_stats=True) and export after eval(), or use LayerNorm or GroupNorm"
RANDOM = "draw random numbers only while self.training is true"
CUSTOM = "use torch's own ops: the verifier and the server have no other"

Finding = tuple[str, str]


def graph(subject: Subject) -> CheckResult:
    """No op of the program as it was exported is in training mode."""
    return _scan("graph", subject.program)


def decomposed_graph(subject: Subject) -> CheckResult:
    """The same after decomposition into core ops, which shows what composite ops hide, and that no buffer is written."""
    program = subject.decomposed
    written = sorted(set(program.graph_signature.buffers_to_mutate.values()))
    if written:
        where = Location(layer=written[0].rpartition(".")[0] or "the model", op="copy_")
        return failed("decomposed_graph", f"the program writes to buffer '{written[0]}' at each call", NORM, where)
    return _scan("decomposed_graph", program)


def _scan(name: str, program: ExportedProgram) -> CheckResult:
    findings: list[tuple[Finding, Location]] = []
    count = 0
    for node, where in calls(program):
        count += 1
        finding = inspect(node)
        if finding:
            findings.append((finding, where))
    if not findings:
        return passed(name, f"{count} ops, none in training mode")
    (what, remedy), where = findings[0]
    more = f" (and {len(findings) - 1} more such ops)" if len(findings) > 1 else ""
    return failed(name, f"{what} in layer '{where.layer}' ({where.source}){more}", remedy, where)


def inspect(node: Node) -> Finding | None:
    """What is wrong with the op and what to do about it; None when it behaves the same at each call."""
    target: Any = node.target
    if isinstance(target, OpOverload):
        if target.namespace not in NAMESPACES:
            return f"{op_name(node)} is an op of another library", CUSTOM
        return _operator(node, target)
    if isinstance(target, HigherOrderOperator):
        return None if str(target) in CONTROL_FLOW else (f"the higher-order op {target} is not known to be in eval mode", CUSTOM)
    if node.op == "call_function" and getattr(target, "__module__", "") in PLAIN_MODULES:
        return None
    return f"the call of {str(target)[:80]} is none of an operator", CUSTOM


def _operator(node: Node, target: OpOverload) -> Finding | None:
    given = arguments(node)
    name = op_name(node)
    for marks, rule in RULES.items():
        if marks <= given.keys():
            return rule(name, given)
    if torch.Tag.nondeterministic_seeded in target.tags:
        return f"{name} draws random numbers", RANDOM
    return None


def _dropout(name: str, given: dict[str, Any]) -> Finding | None:
    if given["train"] is False or given["p"] == 0:
        return None
    return f"{name} (train=True, p={given['p']:.3g}): dropout is on", DROPOUT


def _recurrent(name: str, given: dict[str, Any]) -> Finding | None:
    if given["train"] is False or given["dropout"] == 0:
        return None
    return f"{name} (train=True, dropout={given['dropout']:.3g}): dropout between its layers is on", RECURRENT


def _attention(name: str, given: dict[str, Any]) -> Finding | None:
    return None if given["dropout_p"] == 0 else (f"{name} (dropout_p={given['dropout_p']:.3g}): attention dropout is on", ATTENTION)


def _noisy_slope(name: str, given: dict[str, Any]) -> Finding | None:
    return (f"{name} (training=True): its slope is drawn at random", RECURRENT) if given["training"] is not False else None


def _instance_norm(name: str, given: dict[str, Any]) -> Finding | None:
    if given["use_input_stats"] is True and given["running_mean"] is not None:
        return f"{name} (use_input_stats=True): it is in training mode and updates its running statistics", NORM
    return None


def _batch_norm(name: str, given: dict[str, Any]) -> Finding | None:
    return (f"{name} (training=True): it normalises by the batch at hand", NORM) if given["training"] is not False else None


# Without running statistics the decomposed form is also what InstanceNorm becomes; batch_invariance tells the two apart.
RULES: dict[frozenset[str], Callable[[str, dict[str, Any]], Finding | None]] = {
    frozenset(("train", "p")): _dropout,
    frozenset(("train", "dropout")): _recurrent,
    frozenset(("dropout_p",)): _attention,
    frozenset(("lower", "upper", "training")): _noisy_slope,
    frozenset(("use_input_stats", "running_mean")): _instance_norm,
    frozenset(("running_mean", "running_var", "training")): _batch_norm,
}
