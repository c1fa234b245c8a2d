"""The dropout plan as data: for a model and a spec, which layer gets which rate and why.

It sees nn.Dropout and its kin, and the rates that other modules keep as an attribute (nn.MultiheadAttention, nn.LSTM,
nn.GRU, nn.RNN). Dropout that a forward calls as a function has no layer, so no plan can name it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import nn

from dropout_api.candidate import PlanRow
from dropout_api.dropout import DropoutKind, DropoutRule, DropoutSpec, Implementation
from dropout_api.names import ExitCode
from dropout_trainer.errors import StageFailure

ROOT = "(model)"
"""Name of a model that is itself a dropout layer."""
KINDS: tuple[tuple[tuple[type[nn.Module], ...], DropoutKind], ...] = (
    ((nn.AlphaDropout, nn.FeatureAlphaDropout), DropoutKind.ALPHA),
    ((nn.Dropout1d, nn.Dropout2d, nn.Dropout3d), DropoutKind.SPATIAL),
    ((nn.modules.dropout._DropoutNd,), DropoutKind.STANDARD),
    ((nn.MultiheadAttention,), DropoutKind.ATTENTION),
    ((nn.RNNBase,), DropoutKind.STANDARD),
)
LISTED = 20


@dataclass(frozen=True)
class Site:
    """A place in a model that holds a dropout rate."""

    layer: str
    kind: DropoutKind
    module: nn.Module
    attribute: str

    @property
    def type(self) -> str:
        name = type(self.module).__name__
        return name if self.attribute == "p" else f"{name}.{self.attribute}"

    @property
    def rate(self) -> float:
        return float(getattr(self.module, self.attribute))

    def set(self, rate: float) -> None:
        setattr(self.module, self.attribute, rate)


def sites(model: nn.Module) -> Iterator[Site]:
    """Every place in `model` that holds a dropout rate, in the order of its modules."""
    for name, module in model.named_modules():
        kind = next((kind for types, kind in KINDS if isinstance(module, types)), None)
        single = isinstance(module, nn.RNNBase) and module.num_layers == 1  # has no place between layers to drop anything
        if kind is not None and not single:
            yield Site(name or ROOT, kind, module, "p" if isinstance(module, nn.modules.dropout._DropoutNd) else "dropout")


def make_plan(model: nn.Module, spec: DropoutSpec, *, fast: bool) -> list[PlanRow]:
    """A row for each dropout layer of `model`: the first rule that matches decides, else `spec.rate`, else the model.

    Raises StageFailure for a rule that matches no layer.
    """
    found = list(sites(model))
    for number, rule in enumerate(spec.layers, 1):
        if not any(matches(rule, site) for site in found):
            raise StageFailure("SpecInvalid", _unmatched(number, rule, found), ExitCode.SPEC_INVALID)
    return [_row(site, spec) for site in found]


def matches(rule: DropoutRule, site: Site) -> bool:
    return rule.kind in (None, site.kind) and fnmatchcase(site.layer, rule.match)


def apply_plan(plan: Sequence[PlanRow], model: nn.Module) -> "AppliedPlan":
    """Sets every rate of `plan` in the `model` that it was made for, and reads it back.

    Raises StageFailure when a layer does not take its rate.
    """
    for row, site in zip(plan, sites(model), strict=True):
        site.set(row.rate)
    for row, site in zip(plan, sites(model), strict=True):
        if (site.layer, site.rate) != (row.layer, row.rate):
            message = f"layer {row.layer} ({row.type}) was set to rate {row.rate:g} but reads back {site.rate:g}"
            raise StageFailure("UserCode", message, ExitCode.USER_CODE)
    return AppliedPlan(plan, model)


class AppliedPlan:
    def __init__(self, rows: Sequence[PlanRow], model: nn.Module) -> None:
        self.rows = list(rows)
        self._model = model

    def at(self, t: float) -> None:
        """Sets the scheduled rates."""

    def check(self) -> None:
        """Reads back."""

    def live(self) -> list[str]:
        return [row.layer for row in self.rows if row.rate > 0]


def _row(site: Site, spec: DropoutSpec) -> PlanRow:
    rate, why = site.rate, "model"
    if spec.rate is not None:
        rate, why = spec.rate, "spec.dropout.rate"
    for number, rule in enumerate(spec.layers, 1):
        if matches(rule, site):
            rate, why = rule.rate, f"rule {number} ({rule.match})"
            break
    return PlanRow(layer=site.layer, kind=site.kind.value, type=site.type, rate=rate, why=why)


def _unmatched(number: int, rule: DropoutRule, found: Sequence[Site]) -> str:
    wanted = f"match '{rule.match}'" + (f" with kind {rule.kind.value}" if rule.kind else "")
    layers = ", ".join(f"{site.layer} ({site.kind.value})" for site in found[:LISTED]) or "none"
    more = f" and {len(found) - LISTED} more" if len(found) > LISTED else ""
    return f"spec.dropout.layers[{number - 1}] (rule {number}): {wanted} fits no dropout layer; the model has: {layers}{more}"


def resolve_fast(implementation: Implementation, device: torch.device, compiled: bool) -> bool:
    return False
