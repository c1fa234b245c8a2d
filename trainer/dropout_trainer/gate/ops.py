"""What an op does to eval mode, told from its arguments: dropout that is on, batch statistics, random draws.

Names alone are a false alarm (an eval program still contains aten.dropout with train=False), so the arguments decide,
read by the name that they have in the op's schema; what draws random numbers is known by torch's own tag
nondeterministic_seeded, which covers ops that no list would.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch._ops import OpOverload
from torch.fx import Node

NAMESPACES = ("aten", "prims")
"""Ops of torch itself; every other namespace is another library's."""

DROPOUT = "use nn.Dropout, or pass training=self.training to the functional form, and export after eval()"
ATTENTION = "pass dropout_p=self.p if self.training else 0.0: scaled_dot_product_attention knows no mode"
RECURRENT = "call eval() before the export and keep the layer registered as a submodule, so that eval() reaches it"
NORM = "track running statistics (track_running_stats=True) and export after eval(), or use LayerNorm or GroupNorm"
RANDOM = "draw random numbers only while self.training is true"
CUSTOM = "use torch's own ops: the verifier and the server have no other"

Finding = tuple[str, str]
"""What is wrong, and what to do about it."""
DROPOUT_OPS = ("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout", "native_dropout", "bernoulli")


def named(target: Any, args: Any, kwargs: Any) -> dict[str, Any]:
    """A call's arguments by schema name, defaults included; empty for a call that has no schema."""
    schema = getattr(target, "_schema", None)
    if schema is None:
        return {}
    values = {argument.name: argument.default_value for argument in schema.arguments if argument.has_default_value()}
    values |= dict(zip((argument.name for argument in schema.arguments), args, strict=False))
    return values | dict(kwargs)


def op_name(target: Any) -> str:
    """As `aten.dropout`, without the overload."""
    if not isinstance(target, str | OpOverload) and hasattr(target, "__name__"):
        return str(target.__name__)
    return ".".join(str(target).split(".")[:2])


def live(target: OpOverload, given: dict[str, Any]) -> Finding | None:
    """What is wrong with an op that is called with these arguments; None when it behaves the same at each call."""
    name = op_name(target)
    for marks, rule in RULES.items():
        if marks <= given.keys():
            return rule(name, given)
    if torch.Tag.nondeterministic_seeded in target.tags:
        return f"{name} draws random numbers", RANDOM
    return None


def is_dropout(target: OpOverload, given: dict[str, Any]) -> bool:
    """Whether a live op is dropout and nothing else: what an MC-dropout program may hold."""
    base = str(target).split(".")[1].rstrip("_")
    return base in DROPOUT_OPS or "dropout_p" in given or ({"train", "dropout"} <= given.keys())


def _number(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, int | float) else "unknown"


def _off(value: Any) -> bool:
    """Whether a rate is 0; one that is computed is not."""
    return isinstance(value, int | float) and value == 0


def _dropout(name: str, given: dict[str, Any]) -> Finding | None:
    if given["train"] is False or _off(given["p"]):
        return None
    return f"{name} (train=True, p={_number(given['p'])}): dropout is on", DROPOUT


def _recurrent(name: str, given: dict[str, Any]) -> Finding | None:
    if given["train"] is False or _off(given["dropout"]) or given.get("num_layers") == 1:
        return None
    return f"{name} (train=True, dropout={_number(given['dropout'])}): dropout between its layers is on", RECURRENT


def _attention(name: str, given: dict[str, Any]) -> Finding | None:
    return None if _off(given["dropout_p"]) else (f"{name} (dropout_p={_number(given['dropout_p'])}): attention dropout is on", ATTENTION)


def _noisy_slope(name: str, given: dict[str, Any]) -> Finding | None:
    return (f"{name} (training=True): its slope is drawn at random", RECURRENT) if given["training"] is not False else None


def _instance_norm(name: str, given: dict[str, Any]) -> Finding | None:
    if given["use_input_stats"] is not False and given["running_mean"] is not None:
        return f"{name} (use_input_stats=True): it is in training mode and updates its running statistics", NORM
    return None


def _batch_norm(name: str, given: dict[str, Any]) -> Finding | None:
    if given["training"] is False or (given["running_mean"] is None and _one_row(given["input"])):
        return None  # over a single row it is how group norm, instance norm and weight standardisation are computed
    return f"{name} (training=True): it normalises by the batch at hand", NORM


def _one_row(value: Any) -> bool:
    shape: Any = getattr(value.meta.get("val") if isinstance(value, Node) else value, "shape", ())
    return len(shape) > 0 and isinstance(shape[0], int) and shape[0] == 1


# Without running statistics the decomposed form is also what InstanceNorm becomes; batch_invariance tells the two apart.
RULES: dict[frozenset[str], Callable[[str, dict[str, Any]], Finding | None]] = {
    frozenset(("train", "p")): _dropout,
    frozenset(("train", "dropout")): _recurrent,
    frozenset(("dropout_p",)): _attention,
    frozenset(("lower", "upper", "training")): _noisy_slope,
    frozenset(("use_input_stats", "running_mean")): _instance_norm,
    frozenset(("running_mean", "running_var", "training")): _batch_norm,
}
