"""A rule that inserts or wraps adds exactly what it says to exactly the layers it names, or is refused in one line with a remedy."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dropout_api.names import ExitCode
from dropout_trainer.dropout import DropoutRule, DropoutSpec, FastDropout, PlanRow, StochasticDepth, apply_plan, make_plan
from dropout_trainer.errors import StageFailure


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Dropout(0.1))
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, rows: Tensor) -> Tensor:
        rows = rows + self.branch(rows)
        return rows + self.attention(rows, rows, rows)[0]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 8)
        self.lstm = nn.LSTM(8, 8, num_layers=2, dropout=0.2, batch_first=True)
        self.blocks = nn.ModuleList(Block() for _ in range(2))
        self.output = nn.Linear(8, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        rows = self.lstm(self.embedding(tokens))[0]
        for block in self.blocks:
            rows = block(rows)
        return self.output(rows.mean(1))


def rule(**fields: Any) -> DropoutRule:
    return DropoutRule.model_validate({"rate": 0.3, **fields})


def plan_for(*rules: DropoutRule, model: nn.Module | None = None) -> list[PlanRow]:
    return make_plan(model or Net(), DropoutSpec(layers=list(rules)), fast=True)


def added(*rules: DropoutRule) -> list[tuple[str, str]]:
    return [(row.layer, row.type) for row in plan_for(*rules) if row.action != "Set"]


def refused(*rules: DropoutRule, model: nn.Module | None = None) -> str:
    with pytest.raises(StageFailure) as end:
        plan_for(*rules, model=model)
    assert (end.value.reason, end.value.exit_code) == ("SpecInvalid", ExitCode.SPEC_INVALID)
    return end.value.message


def test_a_pattern_and_a_type_name_layers_together() -> None:
    found = added(rule(match="blocks.*", type="Linear", action="Insert", kind="Standard"))
    assert found == [("blocks.0.branch.0", "Linear + Dropout"), ("blocks.1.branch.0", "Linear + Dropout")]


def test_of_each_action_the_first_rule_decides() -> None:
    rows = plan_for(
        rule(match="lstm", action="Insert", kind="Variational", rate=0.1), rule(match="lstm", action="Insert", kind="Standard", rate=0.2),
        rule(match="lstm", action="Wrap", kind="DropConnect", rate=0.3), rule(match="lstm", rate=0.4), rule(match="l*", rate=0.5),
    )
    assert [(row.action, row.kind, row.rate, row.why) for row in rows if row.layer == "lstm"] == [
        ("Set", "Standard", 0.4, "rule 4 (lstm)"), ("Wrap", "DropConnect", 0.3, "rule 3 (lstm)"),
        ("Insert", "Variational", 0.1, "rule 1 (lstm)"),
    ]


def test_a_wildcard_wraps_what_can_be_wrapped_and_nothing_whose_forward_is_passed_by() -> None:
    connected = added(rule(action="Wrap", kind="DropConnect"))
    assert [layer for layer, _ in connected] == ["lstm", "blocks.0.branch.0", "blocks.1.branch.0", "output"]
    assert added(rule(action="Wrap", kind="Embedding")) == [("embedding", "Embedding + EmbeddingDropout")]


def test_a_pattern_adds_nothing_to_dropout_to_lists_or_behind_the_model() -> None:
    layers = {layer for layer, _ in added(rule(match="[!x]*", action="Insert", kind="Standard"))}
    assert not layers & {"(model)", "blocks", "blocks.0.branch.2", "blocks.0.attention.out_proj"}
    assert {"blocks.0", "blocks.0.branch", "blocks.0.branch.1", "blocks.0.attention"} <= layers


def test_attributes_of_other_libraries_layers_are_seen() -> None:
    class ConvNextDropPath(nn.Module):
        drop_prob: float | None

        def __init__(self) -> None:
            super().__init__()
            self.drop_prob = 0.1

    class SdpaAttention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention_dropout, self.training_dropout = 0.2, 0.9

    class StochasticDepth(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.p, self.mode = 0.3, "row"

    class Bert(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention_dropout = nn.Dropout(0.4)

    model = nn.ModuleList([ConvNextDropPath(), SdpaAttention(), StochasticDepth(), Bert()])
    rows = [(row.layer, row.kind, row.type, row.rate) for row in plan_for(model=model)]
    assert rows == [
        ("0", "StochasticDepth", "ConvNextDropPath.drop_prob", 0.1), ("1", "Attention", "SdpaAttention.attention_dropout", 0.2),
        ("2", "StochasticDepth", "StochasticDepth.p", 0.3), ("3.attention_dropout", "Standard", "Dropout", 0.4),
    ]
    apply_plan(make_plan(model, DropoutSpec(rate=0.5), fast=True), model)
    assert [model[0].drop_prob, model[1].attention_dropout, model[2].p, model[3].attention_dropout.p] == [0.5] * 4
    assert model[1].training_dropout == 0.9


def test_fast_is_for_torchs_own_dropout_class_alone() -> None:
    class Mine(nn.Dropout):
        pass

    model = nn.Sequential(nn.Dropout(0.1), Mine(0.1), nn.Dropout2d(0.1), nn.Linear(2, 2), FastDropout(0.1))
    spec = DropoutSpec(layers=[rule(match="3", action="Insert", kind="Standard")])
    assert [row.implementation for row in make_plan(model, spec, fast=True)] == ["Fast", "Native", "Native", "Fast", "Fast"]
    for native in (make_plan(model, spec, fast=False), make_plan(model, spec.model_copy(update={"implementation": "Native"}), fast=True)):
        assert {row.implementation for row in native} == {"Native"}
    apply_plan(make_plan(model, spec, fast=False), model)
    assert [type(model[0]), type(model[4]), type(model[3].plan_dropout)] == [nn.Dropout] * 3


@pytest.mark.parametrize(("rules", "said"), [
    ([{"match": "head", "action": "Insert", "kind": "Standard"}],
     "layers[0] (rule 1): match 'head' with kind Standard fits no layer that can take it; the model has: embedding (Embedding), lstm"),
    ([{"match": "lstm"}, {"match": "*", "type": "GRU", "action": "Wrap", "kind": "DropConnect"}],
     "layers[1] (rule 2): match '*' with type GRU and kind DropConnect fits no layer that can take it; the model has: lstm (LSTM),"),
    ([{"match": "embedding", "action": "Wrap", "kind": "DropConnect"}],
     "layer embedding is of class Embedding; DropConnect needs exactly one of Linear, Conv1d, Conv2d, Conv3d, LSTM, GRU, RNN; match such"),
    ([{"match": "output", "action": "Wrap", "kind": "Embedding"}], "layer output is of class Linear; kind Embedding needs an nn.Embedding"),
    ([{"action": "Insert", "kind": "Standard"}], "say where: set match or type"),
    ([{"action": "Wrap", "kind": "StochasticDepth"}], "say where: set match or type"),
    ([{"kind": "Variational"}], "fits no dropout layer; the model has: lstm (Standard), blocks.0.branch.2 (Standard), blocks.0.attention"),
])
def test_a_rule_that_cannot_hold_is_refused_with_what_could(rules: list[dict[str, Any]], said: str) -> None:
    assert said in refused(*(rule(**fields) for fields in rules))


@pytest.mark.parametrize(("kind", "host", "shape", "said"), [
    ("Spatial", nn.Linear(4, 4), (3, 4), r"behind Linear: Spatial dropout needs \[N, channels, length, ...\], but gets \[3, 4\]; use kind"),
    ("Variational", nn.Conv2d(4, 4, 1), (3, 4, 2, 2), r"Variational dropout needs \[N, length, features\], but gets \[3, 4, 2, 2\]"),
])
def test_an_output_of_the_wrong_shape_is_named_with_the_remedy(kind: str, host: nn.Module, shape: tuple[int, ...], said: str) -> None:
    model = nn.Sequential(host)
    apply_plan(plan_for(rule(match="0", action="Insert", kind=kind), model=model), model)
    with pytest.raises(StageFailure, match=said):
        model(torch.ones(shape))


def test_an_output_that_is_no_tensor_is_named() -> None:
    class Answers(nn.Module):
        def forward(self, rows: Tensor) -> dict[str, Tensor]:
            return {"logits": rows}

    model = nn.Sequential(Answers())
    apply_plan(plan_for(rule(match="0", action="Insert", kind="Standard"), model=model), model)
    with pytest.raises(StageFailure, match=r"Answers answers dict.*match a layer inside of it"):
        model(torch.ones(2, 2))


def test_a_packed_sequence_is_dropped_by_elements_and_by_nothing_else() -> None:
    packed = nn.utils.rnn.pack_sequence([torch.ones(3, 4), torch.ones(2, 4)])
    for kind, works in (("Standard", True), ("Variational", False)):
        gru = nn.GRU(4, 64, batch_first=True)
        apply_plan(plan_for(rule(match="(model)", action="Insert", kind=kind), model=gru), gru)
        if works:
            output = gru(packed)[0]
            assert torch.equal(output.batch_sizes, packed.batch_sizes)
            assert 0.2 < float((output.data == 0).float().mean()) < 0.4
        else:
            with pytest.raises(StageFailure, match="answers PackedSequence"):
                gru(packed)


def test_setting_stochastic_depth_needs_no_name() -> None:
    rule = DropoutRule.model_validate({"kind": "StochasticDepth", "rate": 0.3})
    (row,) = make_plan(nn.Sequential(nn.Linear(4, 4), StochasticDepth(0.1)), DropoutSpec(layers=[rule]), fast=False)
    assert (row.layer, row.rate) == ("1", 0.3)
