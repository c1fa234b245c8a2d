"""Every dropout layer gets one row; the first rule that matches decides; what the plan says is what the model has."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from dropout_api.dropout import DropoutKind, DropoutRule, DropoutSpec
from dropout_api.names import ExitCode
from dropout_trainer.dropout import apply_plan, make_plan
from dropout_trainer.dropout.places import sites
from dropout_trainer.dropout.rules import matches
from dropout_trainer.errors import StageFailure

LEAVES = [nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout]
rates = st.floats(0, 0.99)


@st.composite
def models(draw: st.DrawFn) -> nn.Module:
    block = st.lists(st.sampled_from(LEAVES), min_size=1, max_size=4)
    blocks = draw(st.lists(block, min_size=1, max_size=4))
    return nn.Sequential(*(nn.Sequential(*(leaf(draw(rates)) for leaf in leaves)) for leaves in blocks))


rules = st.builds(
    DropoutRule, match=st.sampled_from(["*", "0.*", "*.0", "0.0"]), kind=st.none() | st.sampled_from(DropoutKind), rate=rates
)


@given(model=models(), rate=st.none() | rates, layers=st.lists(rules, max_size=4))
def test_the_first_matching_rule_decides_else_the_spec_else_the_model(
    model: nn.Module, rate: float | None, layers: list[DropoutRule]
) -> None:
    found = list(sites(model))
    layers = [rule for rule in layers if any(matches(rule, site) for site in found)]
    plan = make_plan(model, DropoutSpec(rate=rate, layers=layers), fast=False)
    assert [row.layer for row in plan] == [name for name, module in model.named_modules() if type(module) in LEAVES]
    for site, row in zip(found, plan, strict=True):
        first = next((rule for rule in layers if matches(rule, site)), None)
        assert row.rate == (first.rate if first else site.rate if rate is None else rate)
        assert row.why.startswith("rule" if first else "model" if rate is None else "spec.dropout.rate")


@given(model=models(), rate=rates)
def test_an_applied_plan_is_what_the_model_has(model: nn.Module, rate: float) -> None:
    plan = make_plan(model, DropoutSpec(rate=rate), fast=False)
    apply_plan(plan, model)
    again = make_plan(model, DropoutSpec(), fast=False)
    assert [(row.layer, row.rate) for row in again] == [(row.layer, row.rate) for row in plan]
    apply_plan(plan, model)
    assert make_plan(model, DropoutSpec(), fast=False) == again


def test_kinds_follow_the_module_and_attributes_count() -> None:
    model = nn.ModuleDict({
        "mha": nn.MultiheadAttention(4, 2, dropout=0.1), "lstm": nn.LSTM(4, 4, num_layers=2, dropout=0.2), "single": nn.GRU(4, 4),
        "standard": nn.Dropout(0.3), "spatial": nn.Dropout2d(0.4), "alpha": nn.AlphaDropout(0.5), "feature": nn.FeatureAlphaDropout(0.6),
    })
    rows = {row.layer: (row.kind, row.type, row.rate) for row in make_plan(model, DropoutSpec(), fast=False)}
    assert rows == {
        "mha": ("Attention", "MultiheadAttention.dropout", 0.1), "lstm": ("Standard", "LSTM.dropout", 0.2),
        "standard": ("Standard", "Dropout", 0.3), "spatial": ("Spatial", "Dropout2d", 0.4), "alpha": ("Alpha", "AlphaDropout", 0.5),
        "feature": ("Alpha", "FeatureAlphaDropout", 0.6),
    }


def test_attributes_are_set_where_the_forward_reads_them() -> None:
    lstm = nn.LSTM(3, 3, num_layers=2, dropout=0.9, batch_first=True)
    apply_plan(make_plan(lstm, DropoutSpec(rate=0.0), fast=False), lstm)
    inputs = torch.ones(1, 2, 3)
    assert torch.equal(lstm(inputs)[0], lstm(inputs)[0])


def test_a_rule_that_matches_nothing_is_refused_with_the_layers_there_are() -> None:
    model = nn.Sequential(nn.Dropout(0.1), nn.Dropout2d(0.2))
    rules = [DropoutRule(rate=0.3), DropoutRule(match="feature.*", kind=DropoutKind.SPATIAL, rate=0.1)]
    said = r"layers\[1\] \(rule 2\): match 'feature.\*' with kind Spatial.*0 \(Standard\), 1 \(Spatial\)"
    with pytest.raises(StageFailure, match=said) as end:
        make_plan(model, DropoutSpec(layers=rules), fast=False)
    assert end.value.exit_code == ExitCode.SPEC_INVALID


def test_a_layer_that_does_not_take_its_rate_is_named() -> None:
    class Stubborn(nn.Dropout):
        def __setattr__(self, name: str, value: object) -> None:
            super().__setattr__(name, 0.5 if name == "p" else value)  # type: ignore[arg-type]

    model = nn.Sequential(Stubborn())
    with pytest.raises(StageFailure, match=r"layer 0 \(Stubborn\) was set to rate 0.1 but reads back 0.5"):
        apply_plan(make_plan(model, DropoutSpec(rate=0.1), fast=False), model)
