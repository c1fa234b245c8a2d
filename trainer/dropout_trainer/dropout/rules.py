"""Which rule of a spec decides for which layer, and what is said of a rule that decides for none."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from dropout_api.dropout import DropoutAction, DropoutKind, DropoutRule
from dropout_api.names import ExitCode
from dropout_trainer.dropout.drop_connect import CLASSES, DropConnect
from dropout_trainer.dropout.places import ROOT, Place, layers
from dropout_trainer.errors import StageFailure

NEVER_CALLED = (nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict, nn.modules.linear.NonDynamicallyQuantizableLinear)
"""Modules without a forward, and the projection of nn.MultiheadAttention, whose weight torch reads past its forward."""
LISTED = 20


@dataclass(frozen=True)
class Host:
    """A layer to which dropout can be added."""

    layer: str
    module: nn.Module


Candidate = Place | Host
Decision = tuple[int, DropoutRule]
"""A rule and its number, from 1."""


def hosts(model: nn.Module) -> Iterator[Host]:
    """Layers that run and are no dropout, in the order of the model's modules."""
    for name, module in layers(model):
        if not isinstance(module, (*NEVER_CALLED, _DropoutNd)):
            yield Host(name, module)


def decide(rules: Sequence[DropoutRule], action: DropoutAction, candidate: Candidate) -> Decision | None:
    """The first rule with that action that matches."""
    return next(((number, rule) for number, rule in enumerate(rules, 1) if rule.action is action and matches(rule, candidate)), None)


def matches(rule: DropoutRule, candidate: Candidate) -> bool:
    """A rule that sets wants a layer that has dropout, of its kind if it names one; one that adds a layer that can take it."""
    if isinstance(candidate, Place):
        return rule.action is DropoutAction.SET and rule.kind in (None, candidate.kind) and _named(rule, candidate)
    return rule.action is not DropoutAction.SET and _can_take(rule, candidate) and _named(rule, candidate)


def check(rules: Sequence[DropoutRule], candidates: Sequence[Candidate]) -> None:
    """Raises StageFailure for a rule that matches nothing, or whose layer cannot take what it adds."""
    for number, rule in enumerate(rules, 1):
        if _says_nothing(rule):
            raise _invalid(number, "say where: set match or type, or dropout would be added to every layer and every part of it")
        if any(matches(rule, candidate) for candidate in candidates):
            continue
        named = next((host for host in candidates if isinstance(host, Host) and host.layer == rule.match and _named(rule, host)), None)
        if named is not None and rule.action is not DropoutAction.SET:
            raise _invalid(number, f"layer {named.layer} is of class {_class(named)}; {_takes(rule)}")
        raise _invalid(number, _unmatched(rule, candidates))


def _named(rule: DropoutRule, candidate: Candidate) -> bool:
    """Whether name and class are what a rule asks for. A class counts by its bases, too."""
    classes = {base.__name__ for base in type(candidate.module).__mro__}
    return fnmatchcase(candidate.layer, rule.match) and (rule.type is None or rule.type in classes)


def _can_take(rule: DropoutRule, host: Host) -> bool:
    match rule.kind:
        case DropoutKind.DROP_CONNECT:
            return type(host.module) in CLASSES or isinstance(host.module, DropConnect)
        case DropoutKind.EMBEDDING:
            return isinstance(host.module, nn.Embedding)
    inside = next(host.module.children(), None) is not None
    return host.layer != ROOT or not inside or rule.match == ROOT  # a pattern means parts of the model, not the model


def _says_nothing(rule: DropoutRule) -> bool:
    wraps_anything = rule.action is DropoutAction.WRAP and rule.kind is DropoutKind.STOCHASTIC_DEPTH
    anywhere = rule.action is DropoutAction.INSERT or wraps_anything
    return anywhere and rule.match == "*" and rule.type is None


def _takes(rule: DropoutRule) -> str:
    match rule.kind:
        case DropoutKind.DROP_CONNECT:
            names = ", ".join(kind.__name__ for kind in CLASSES)
            return f"DropConnect needs exactly one of {names}; match such a layer inside of it, or use action Insert"
        case DropoutKind.EMBEDDING:
            return "kind Embedding needs an nn.Embedding; use action Insert for other layers"
    return "match a part of it"


def _unmatched(rule: DropoutRule, candidates: Sequence[Candidate]) -> str:
    asked = [f"type {rule.type}"] if rule.type else []
    asked += [f"kind {rule.kind.value}"] if rule.kind else []
    wanted = f"match '{rule.match}'" + (f" with {' and '.join(asked)}" if asked else "")
    if rule.action is DropoutAction.SET:
        there = [f"{place.layer} ({place.kind.value})" for place in candidates if isinstance(place, Place)]
        return f"{wanted} fits no dropout layer; the model has: {_listed(there)}"
    able = [f"{host.layer} ({_class(host)})" for host in candidates if isinstance(host, Host) and _can_take(rule, host)]
    return f"{wanted} fits no layer that can take it; the model has: {_listed(able)}"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return (", ".join(names[:LISTED]) or "none") + more


def _class(host: Host) -> str:
    return type(host.module).__name__


def _invalid(number: int, text: str) -> StageFailure:
    return StageFailure("SpecInvalid", f"spec.dropout.layers[{number - 1}] (rule {number}): {text}", ExitCode.SPEC_INVALID)
