"""In training a layer answers on average what it answers in eval mode: the slope of one on the other is 1 within its confidence bound.

Only layers that are linear in eval mode have such a mean. Alpha dropout keeps mean and variance of standard inputs instead, and a
recurrent layer's weights keep theirs. Seeds are fixed; SIGMAS would fail a sound layer for one seed in 15,000.
"""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from dropout_trainer.dropout import DropoutKind, DropoutRule, DropoutSpec, StochasticDepth, apply_plan, make_plan
from dropout_trainer.dropout.drop_connect import DropConnectLSTM

DRAWS = 600
SIGMAS = 4.0
TIGHT = 0.05
"""A bound that is wider than this would say little."""
SET, INSERT, WRAP = "Set", "Insert", "Wrap"


class SelfAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, dropout=0.1, batch_first=True)

    def forward(self, rows: Tensor) -> Tensor:
        keys = torch.ones_like(rows)  # fixed keys: linear in the values
        answer: Tensor = self.attention(keys, keys, rows, need_weights=False)[0]
        return answer


class ScaledDotProduct(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention_dropout = 0.1

    def forward(self, rows: Tensor) -> Tensor:
        keys, rate = torch.ones_like(rows), self.attention_dropout if self.training else 0.0
        return nn.functional.scaled_dot_product_attention(keys, keys, rows, dropout_p=rate)


@dataclass
class Case:
    model: nn.Module
    action: str
    kind: str
    inputs: Tensor
    fast: bool = False


def cases() -> dict[str, Case]:
    torch.manual_seed(3)
    rows, images, sequence, tokens = torch.randn(32, 8), torch.randn(32, 6, 4, 4), torch.randn(48, 6, 8), torch.randint(0, 100, (48, 6))

    def linear() -> nn.Module:
        return nn.Sequential(nn.Linear(8, 16, bias=False))

    return {
        "standard": Case(nn.Sequential(nn.Dropout(0.1)), SET, "Standard", rows),
        "standard, fast": Case(nn.Sequential(nn.Dropout(0.1)), SET, "Standard", rows, fast=True),
        "standard, inserted": Case(linear(), INSERT, "Standard", rows, fast=True),
        "spatial 1d": Case(nn.Sequential(nn.Dropout1d(0.1)), SET, "Spatial", sequence),
        "spatial 3d": Case(nn.Sequential(nn.Dropout3d(0.1)), SET, "Spatial", images[:, :, None]),
        "spatial, inserted": Case(nn.Sequential(nn.Conv2d(6, 6, 1, bias=False)), INSERT, "Spatial", images),
        "variational": Case(linear(), INSERT, "Variational", sequence),
        "embedding": Case(nn.Sequential(nn.Embedding(100, 8)), WRAP, "Embedding", tokens),
        "drop connect, dense": Case(linear(), WRAP, "DropConnect", rows),
        "drop connect, 1d": Case(nn.Sequential(nn.Conv1d(6, 6, 3, bias=False)), WRAP, "DropConnect", sequence),
        "drop connect, 2d": Case(nn.Sequential(nn.Conv2d(6, 6, 3, padding_mode="circular", bias=False)), WRAP, "DropConnect", images),
        "stochastic depth": Case(nn.Sequential(StochasticDepth(0.1)), SET, "StochasticDepth", sequence),
        "stochastic depth, wrapped": Case(nn.Sequential(linear()), WRAP, "StochasticDepth", sequence),
        "attention": Case(SelfAttention(), SET, "Attention", sequence),
        "attention around a function": Case(nn.Sequential(ScaledDotProduct()), SET, "Attention", sequence),
    }


CASES = cases()


@torch.no_grad()
@pytest.mark.parametrize("rate", [0.3, 0.6])
@pytest.mark.parametrize("name", CASES)
def test_the_slope_is_one(name: str, rate: float) -> None:
    case = CASES[name]
    match = "0" if isinstance(case.model, nn.Sequential) else "attention"
    rule = DropoutRule(match=match, action=case.action, kind=case.kind, rate=rate)
    plan = make_plan(case.model, DropoutSpec(layers=[rule]), fast=case.fast)
    assert [(row.kind, row.rate, row.implementation) for row in plan] == [(case.kind, rate, "Fast" if case.fast else "Native")]
    apply_plan(plan, case.model)

    expected = case.model.eval()(case.inputs).double()
    case.model.train()
    torch.manual_seed(0)
    drawn = torch.stack([(case.model(case.inputs).double() * expected).sum() for _ in range(DRAWS)]) / expected.square().sum()
    error = float(drawn.std()) / DRAWS**0.5
    assert 0 < SIGMAS * error < TIGHT
    assert abs(float(drawn.mean()) - 1) < SIGMAS * error


@torch.no_grad()
def test_alpha_dropout_keeps_mean_and_variance_of_standard_inputs() -> None:
    model, inputs = nn.Sequential(nn.SELU()), torch.randn(400, 500, generator=torch.Generator().manual_seed(0))
    rule = DropoutRule(match="0", action=INSERT, kind=DropoutKind.ALPHA, rate=0.3)
    standard = nn.Sequential(nn.Identity())
    apply_plan(make_plan(standard, DropoutSpec(layers=[rule]), fast=True), standard)
    torch.manual_seed(0)
    outputs = standard.train()(inputs)
    assert not torch.equal(outputs, inputs)
    for moment, expected in ((outputs, 0.0), (outputs.square(), 1.0)):
        assert abs(float(moment.mean()) - expected) < SIGMAS * float(moment.std()) / inputs.numel() ** 0.5
    assert [row.type for row in make_plan(model, DropoutSpec(layers=[rule]), fast=True)] == ["SELU + AlphaDropout"]


@torch.no_grad()
def test_recurrent_drop_connect_drops_hidden_to_hidden_weights_alone_and_keeps_their_mean() -> None:
    lstm = nn.LSTM(4, 32, num_layers=2)
    weights = dict(lstm.named_parameters())
    apply_plan(make_plan(lstm, DropoutSpec(layers=[DropoutRule(action=WRAP, kind=DropoutKind.DROP_CONNECT, rate=0.3)]), fast=True), lstm)
    assert isinstance(lstm, DropConnectLSTM)
    seen: list[list[Tensor]] = []
    lstm.check_forward_args = lambda *_: seen.append(list(lstm._flat_weights))
    for _ in range(DRAWS):
        lstm(torch.ones(1, 1, 4))
    for number, name in enumerate(lstm._flat_weights_names):
        drawn = torch.stack([weights[number] for weights in seen]).mean(0)
        exact = "weight_hh" not in name
        assert torch.equal(seen[0][number], weights[name]) is exact
        slope = float((drawn * weights[name]).sum() / weights[name].square().sum())
        assert abs(slope - 1) < (1e-4 if exact else 0.01)
    assert all(mine is weights[name] for mine, name in zip(lstm._flat_weights, lstm._flat_weights_names, strict=True))


@torch.no_grad()
def test_masks_are_shared_where_the_kind_says_so() -> None:
    torch.manual_seed(0)
    ones, tokens = torch.ones(6, 5, 8), torch.randint(0, 4, (6, 5))

    def zeros(model: nn.Module, inputs: Tensor, kind: str, action: str) -> Tensor:
        rule = DropoutRule(match="0", action=action, kind=kind, rate=0.5)
        apply_plan(make_plan(model, DropoutSpec(layers=[rule]), fast=True), model)
        return torch.as_tensor(model.train()(inputs) == 0)

    variational = zeros(nn.Sequential(nn.Identity()), ones, "Variational", INSERT)
    assert torch.equal(variational, variational[:, :1].expand_as(variational))
    assert not torch.equal(variational, variational[:1].expand_as(variational))
    depth = zeros(nn.Sequential(nn.Identity()), ones, "StochasticDepth", WRAP)
    assert torch.equal(depth, depth[:, :1, :1].expand_as(depth))
    assert 0 < int(depth[:, 0, 0].sum()) < 6
    dropped = zeros(nn.Sequential(nn.Embedding(4, 8)), tokens, "Embedding", WRAP)
    by_type = [dropped[tokens == token] for token in range(4)]
    assert all(bool((rows == rows[0, 0]).all()) for rows in by_type)
    assert len({bool(rows[0, 0]) for rows in by_type}) == 2


@torch.no_grad()
@pytest.mark.parametrize("batch_first", [False, True])
def test_a_recurrent_layers_first_answer_is_dropped_along_its_own_time(batch_first: bool) -> None:
    torch.manual_seed(0)
    gru = nn.GRU(4, 8, batch_first=batch_first)
    rule = DropoutRule(action=INSERT, type="GRU", kind=DropoutKind.VARIATIONAL, rate=0.5)
    apply_plan(make_plan(gru, DropoutSpec(layers=[rule]), fast=True), gru)
    outputs, state = gru.train()(torch.randn(3, 5, 4))
    zero = outputs == 0
    along, across = (zero[:, :1], zero[:1]) if batch_first else (zero[:1], zero[:, :1])
    assert torch.equal(zero, along.expand_as(zero))
    assert not torch.equal(zero, across.expand_as(zero))
    assert bool((state != 0).all())
