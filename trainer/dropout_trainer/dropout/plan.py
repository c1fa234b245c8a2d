"""The dropout plan as data: for a model and a spec, which layer gets which dropout at which rate, when, how drawn, and why.

    plan = make_plan(model, spec, fast=resolve_fast(spec.implementation, device, compiled=False))
    applied = apply_plan(plan, model)
    for step in range(steps):
        applied.at(step / steps)
        ...
    applied.check()
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from dropout_api.candidate import PlanRow
from dropout_api.dropout import DropoutAction, DropoutKind, DropoutRule, DropoutSpec, Implementation, ScheduleKind
from dropout_api.names import ExitCode
from dropout_trainer.dropout.added import add
from dropout_trainer.dropout.drop_connect import CLASSES
from dropout_trainer.dropout.fast import FastDropout
from dropout_trainer.dropout.layers import EmbeddingDropout, SpatialDropout, StochasticDepth, VariationalDropout
from dropout_trainer.dropout.places import ROOT, Place, places, sites
from dropout_trainer.dropout.rules import Host, check, decide, hosts
from dropout_trainer.dropout.schedules import rate_at
from dropout_trainer.errors import StageFailure

NAMES = {
    DropoutKind.STANDARD: "Dropout", DropoutKind.SPATIAL: "SpatialDropout", DropoutKind.ALPHA: "AlphaDropout",
    DropoutKind.VARIATIONAL: "VariationalDropout", DropoutKind.EMBEDDING: "EmbeddingDropout",
    DropoutKind.DROP_CONNECT: "DropConnect", DropoutKind.STOCHASTIC_DEPTH: "StochasticDepth",
}
"""What is added, as a plan's `type` has it."""


def resolve_fast(implementation: Implementation, device: torch.device, compiled: bool) -> bool:
    """Whether nn.Dropout is to draw its masks as FastDropout does.

    Raises StageFailure for Fast with torch.compile, which draws its own masks.
    """
    if implementation is Implementation.FAST and compiled:
        message = "spec.dropout.implementation: Fast does nothing with spec.training.compile, which draws its own masks; use Auto or Native"
        raise StageFailure("SpecInvalid", message, ExitCode.SPEC_INVALID)
    return implementation is Implementation.FAST or (implementation is Implementation.AUTO and device.type == "cpu" and not compiled)


def make_plan(model: nn.Module, spec: DropoutSpec, *, fast: bool) -> list[PlanRow]:
    """A row for each place of dropout that `model` has or gets, in the order of its modules. The model stays as it is.

    For what it has the first rule that matches decides, else `spec.rate`, else the model. `fast` is what implementation Auto
    means here, see `resolve_fast`. Raises StageFailure for a rule that matches nothing or asks for what a layer cannot take.
    """
    drawn = {Implementation.AUTO: fast, Implementation.FAST: True, Implementation.NATIVE: False}[spec.implementation]
    own = {site.layer: site for site in sites(model)}
    able = {host.layer: host for host in hosts(model)}
    check(spec.layers, [*own.values(), *able.values()])
    rows: list[PlanRow] = []
    for name, _ in model.named_modules():
        layer = name or ROOT
        if layer in own:
            rows.append(_set_row(own[layer], spec, drawn))
        if layer in able:
            rows += _added_rows(able[layer], spec.layers, drawn)
    return rows


@dataclass
class AppliedPlan:
    """A plan in the model to which it was applied."""

    rows: tuple[PlanRow, ...]
    model: nn.Module
    t: float = 0.0
    """Share of all steps for which the scheduled rates are set."""
    _moving: list[tuple[Place, PlanRow]] = field(default_factory=list)

    def at(self, t: float) -> None:
        """Sets the scheduled rates for the share `t` of all steps, 0 to 1. Costs nothing without a schedule."""
        if not self._moving:
            return
        self.t = t
        for place, row in self._moving:
            place.set(rate_at(row.rate, row.schedule, t))

    def check(self) -> None:
        """Reads back from the model what it holds. Raises StageFailure where that is not the plan."""
        found = list(places(self.model))
        for row, place in zip(self.rows, found, strict=False):
            if problem := _difference(row, place, self.t):
                raise StageFailure("UserCode", f"layer {row.layer} ({row.type}) {problem}", ExitCode.USER_CODE)
        if len(found) != len(self.rows):
            layers = ", ".join(sorted({row.layer for row in self.rows} ^ {place.layer for place in found})[:10])
            message = f"the model has {len(found)} places of dropout, its plan {len(self.rows)} ({layers}); keep its layers in training"
            raise StageFailure("UserCode", message, ExitCode.USER_CODE)


def apply_plan(plan: Sequence[PlanRow], model: nn.Module) -> AppliedPlan:
    """Makes `model`, which must be as the one that the plan was made for, what the plan says, in place, at the start of a training.

    Raises StageFailure when the model has no such layer, or a layer does not take what the plan says.
    """
    modules = {name or ROOT: module for name, module in model.named_modules()}
    for row in plan:
        if row.layer not in modules:
            message = f"the dropout plan names layer {row.layer} ({row.type}), which the model does not have; make the plan for this model"
            raise StageFailure("UserCode", message, ExitCode.USER_CODE)
        _establish(row, modules[row.layer])
    applied = AppliedPlan(tuple(plan), model)
    for row, place in zip(plan, places(model), strict=False):
        place.set(rate_at(row.rate, row.schedule, 0.0))
        if row.schedule.kind is not ScheduleKind.CONSTANT:
            applied._moving.append((place, row))
    applied.check()
    return applied


def _set_row(site: Place, spec: DropoutSpec, fast: bool) -> PlanRow:
    implementation = Implementation.FAST if fast and site.can_be_fast else Implementation.NATIVE
    there = PlanRow(layer=site.layer, kind=site.kind, type=site.type, rate=site.rate, implementation=implementation, why="model")
    if found := decide(spec.layers, DropoutAction.SET, site):
        number, rule = found
        return there.model_copy(update={"rate": rule.rate, "schedule": rule.schedule, "why": _why(number, rule)})
    return there if spec.rate is None else there.model_copy(update={"rate": spec.rate, "why": "spec.dropout.rate"})


def _added_rows(host: Host, rules: Sequence[DropoutRule], fast: bool) -> Iterator[PlanRow]:
    for action in (DropoutAction.WRAP, DropoutAction.INSERT):
        if found := decide(rules, action, host):
            number, rule = found
            assert rule.kind is not None  # the API sees to it
            implementation = Implementation.FAST if fast and rule.kind is DropoutKind.STANDARD else Implementation.NATIVE
            yield PlanRow(
                layer=host.layer, kind=rule.kind, type=f"{type(host.module).__name__} + {NAMES[rule.kind]}", action=action,
                rate=rule.rate, schedule=rule.schedule, implementation=implementation, why=_why(number, rule),
            )


def _why(number: int, rule: DropoutRule) -> str:
    return f"rule {number} ({rule.match})"


def _establish(row: PlanRow, module: nn.Module) -> None:
    """Everything of a row but its rate."""
    if row.action is DropoutAction.SET:
        if type(module) in (nn.Dropout, FastDropout):
            module.__class__ = _dropout(row)
    elif row.kind is DropoutKind.DROP_CONNECT:
        module.__class__ = CLASSES.get(type(module), type(module))
    else:
        add(module, row.action, _layer(row, module))


def _layer(row: PlanRow, host: nn.Module) -> nn.Module:
    """What a row adds. Recurrent layers and attention say by `batch_first` which dimension counts rows."""
    rows_first = bool(getattr(host, "batch_first", True))
    match row.kind:
        case DropoutKind.SPATIAL:
            return SpatialDropout()
        case DropoutKind.ALPHA:
            return nn.AlphaDropout()
        case DropoutKind.VARIATIONAL:
            return VariationalDropout(time=1 if rows_first else 0)
        case DropoutKind.EMBEDDING:
            return EmbeddingDropout()
        case DropoutKind.STOCHASTIC_DEPTH:
            return StochasticDepth(rows=0 if rows_first else 1)
    return _dropout(row)()


def _dropout(row: PlanRow) -> type[nn.Dropout]:
    return FastDropout if row.implementation is Implementation.FAST else nn.Dropout


def _difference(row: PlanRow, place: Place, t: float) -> str:
    """What a place has otherwise than its row, in words."""
    if (place.layer, place.action) != (row.layer, row.action):
        return f"should be next among the model's places of dropout, but that is {place.layer} ({place.action.value})"
    rate = rate_at(row.rate, row.schedule, t)
    if place.rate != rate:
        return f"was set to rate {rate:g} but reads back {place.rate:g}"
    for name, wanted, has in (("kind", row.kind, place.kind), ("implementation", row.implementation, place.implementation)):
        if wanted is not has:
            return f"was set to {name} {wanted.value} but has {has.value}"
    return ""
