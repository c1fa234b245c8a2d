"""Each warning has a model that earns it and a near one that does not; asking for advice leaves no trace."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - as everyone writes it

from dropout_trainer.dropout import DropoutSpec, PlanRow, apply_plan, make_plan, with_warnings

ROWS, TOKENS, IMAGES = torch.randn(6, 8), torch.randint(0, 20, (6, 5)), torch.randn(6, 3, 8, 8)
FEW = 10
"""Training rows, fewer than any of these models has parameters."""


class Function(nn.Module):
    """A forward over parts."""

    def __init__(self, forward: Callable[..., Tensor], **parts: nn.Module) -> None:
        super().__init__()
        self.function = forward
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.function(self, inputs)


def plan_of(model: nn.Module, rules: list[dict[str, Any]], rate: float | None = 0.3) -> list[PlanRow]:
    spec = DropoutSpec.model_validate({"rate": rate, "layers": [{"rate": 0.3, **fields} for fields in rules]})
    return make_plan(model, spec, fast=True)


def told(model: nn.Module, inputs: Tensor, *rules: dict[str, Any], rate: float | None = 0.3, rows: int = FEW) -> dict[str, str]:
    plan = plan_of(model, list(rules), rate)
    advised = with_warnings(plan, model, inputs, rows)
    assert [row.model_copy(update={"warnings": []}) for row in advised] == plan
    return {row.layer: "; ".join(row.warnings) for row in advised}


def conv(*behind: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout2d(), nn.ReLU(), *behind, nn.Flatten(), nn.Dropout(), nn.LazyLinear(3))


def test_dropout_before_a_batch_norm() -> None:
    model = conv(nn.BatchNorm2d(4))
    model(IMAGES)
    found = told(model, IMAGES)
    assert "batch norm runs after it (3)" in found["1"]
    assert "arXiv 1801.05134" in found["1"]
    assert found["5"] == ""
    other = conv(nn.GroupNorm(2, 4))
    other(IMAGES)
    assert set(told(other, IMAGES).values()) == {""}


def test_the_order_is_that_of_the_forward_not_of_the_attributes() -> None:
    def forward(self: Any, rows: Tensor) -> Tensor:
        return torch.relu(self.dropout(self.norm(rows)))

    model = Function(forward, dropout=nn.Dropout(), norm=nn.BatchNorm1d(8))
    assert told(model, ROWS) == {"dropout": ""}


def test_kinds_that_do_not_shift_the_variance_of_activations_are_let_pass() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.AlphaDropout(0.1), nn.BatchNorm1d(8), nn.Linear(8, 3))
    assert told(model, ROWS, {"match": "0", "action": "Wrap", "kind": "DropConnect"}) == {"0": "", "1": ""}
    inserted = told(model, ROWS, {"match": "0", "action": "Insert", "kind": "Standard"})
    assert "batch norm" in inserted["0"]


@pytest.mark.parametrize("softmax", [nn.Softmax(1), nn.LogSoftmax(1)])
def test_dropout_right_before_a_softmax(softmax: nn.Module) -> None:
    def function(self: Any, rows: Tensor) -> Tensor:
        return F.softmax(self.dropout(self.dense(rows)), 1) * self.scale(rows).softmax(dim=1)

    model = nn.Sequential(nn.Linear(8, 3), nn.Dropout(), softmax)
    assert "a softmax follows at once" in told(model, ROWS)["1"]
    model = Function(function, dense=nn.Linear(8, 3), dropout=nn.Dropout(), scale=nn.Linear(8, 3))
    assert "a softmax follows at once" in told(model, ROWS)["dropout"]
    assert "a softmax follows at once" in told(model, ROWS, {"match": "scale", "action": "Insert", "kind": "Alpha"})["scale"]
    between = nn.Sequential(nn.Dropout(), nn.Linear(8, 3), softmax)
    assert told(between, ROWS)["0"] == ""


def test_a_softmax_of_what_was_there_before_the_dropout_is_none() -> None:
    def forward(self: Any, rows: Tensor) -> Tensor:
        hidden = self.dense(rows)
        return self.output(torch.softmax(hidden, 1) + self.dropout(hidden))

    model = Function(forward, dense=nn.Linear(8, 8), dropout=nn.Dropout(), output=nn.Linear(8, 3))
    assert told(model, ROWS) == {"dropout": ""}


def test_dropout_on_the_answer_itself() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 3), nn.Dropout())
    found = told(model, ROWS)
    assert found["2"] == ""
    assert "parts of the model's answer" in found["4"]
    assert "parts of the model's answer" in told(model[:4], ROWS, {"match": "3", "action": "Insert", "kind": "Standard"})["3"]
    assert told(model[:4], ROWS, {"match": "3", "action": "Wrap", "kind": "DropConnect"})["3"] == ""


def test_single_elements_of_an_embedding() -> None:
    def forward(self: Any, tokens: Tensor) -> Tensor:
        rows = self.lstm(self.dropout(self.embedding(tokens)))[0]
        return self.output(rows.mean(1))

    def positioned(self: Any, tokens: Tensor) -> Tensor:
        return self.output(self.dropout(self.embedding(tokens) + self.embedding(torch.zeros_like(tokens))).mean(1))

    def parts() -> dict[str, nn.Module]:
        return {"embedding": nn.Embedding(20, 8), "dropout": nn.Dropout(), "output": nn.Linear(8, 3)}

    model = Function(forward, **parts(), lstm=nn.LSTM(8, 8, 2, dropout=0.1, batch_first=True))
    found = told(model, TOKENS)
    assert "action Wrap with kind Embedding" in found["dropout"]
    assert found["lstm"] == ""
    assert told(Function(positioned, **parts()), TOKENS) == {"dropout": ""}
    for kind, action, warned in (("Standard", "Insert", True), ("Variational", "Insert", False), ("Embedding", "Wrap", False)):
        found = told(model, TOKENS, {"match": "embedding", "action": action, "kind": kind}, rate=0.0)
        assert ("action Wrap with kind Embedding" in found["embedding"]) is warned


@pytest.mark.parametrize(("rule", "warned"), [
    ({"rate": 0.5}, False), ({"rate": 0.51}, True),
    ({"rate": 0.2, "schedule": {"kind": "Linear", "startRate": 0.6}}, True),
])
def test_a_rate_above_one_half_at_any_time(rule: dict[str, Any], warned: bool) -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Dropout(), nn.Linear(8, 3))
    assert ("is above 0.5" in told(model, ROWS, rule)["1"]) is warned


def test_a_model_too_small_to_overfit() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Dropout(), nn.Linear(8, 3))
    assert "99 parameters for 100 training rows" in told(model, ROWS, rows=100)["1"]
    assert told(model, ROWS, rows=99)["1"] == ""
    assert told(model, ROWS, {"schedule": {"kind": "Early"}}, rows=100)["1"] == ""
    for parameter in model[0].parameters():
        parameter.requires_grad_(False)
    assert "27 parameters for 99" in told(model, ROWS, rows=99)["1"]


def test_a_layer_that_no_forward_calls() -> None:
    def forward(self: Any, rows: Tensor) -> Tensor:
        return F.linear(rows, self.used.weight) + self.called(rows)

    model = Function(forward, used=nn.Linear(8, 3), called=nn.Linear(8, 3), forgotten=nn.Dropout())
    found = told(model, ROWS, {"type": "Linear", "action": "Wrap", "kind": "DropConnect"})
    assert all("no forward in eval mode calls this layer" in found[layer] for layer in ("used", "forgotten"))
    assert found["called"] == ""


def test_stochastic_depth_without_a_shortcut() -> None:
    def beside(self: Any, rows: Tensor) -> Tensor:
        return self.output(rows + self.branch(rows))

    def alone(self: Any, rows: Tensor) -> Tensor:
        return self.output(self.branch(rows))

    rule = {"match": "branch", "action": "Wrap", "kind": "StochasticDepth"}
    for forward, warned in ((beside, False), (alone, True)):
        model = Function(forward, branch=nn.Linear(8, 8), output=nn.Linear(8, 3))
        assert ("nothing goes around this layer" in told(model, ROWS, rule)["branch"]) is warned


def test_a_rate_of_zero_earns_no_warning() -> None:
    model = nn.Sequential(nn.Linear(8, 3), nn.Dropout())
    assert told(model, ROWS, rate=0.0, rows=10**6) == {"1": ""}


@pytest.mark.parametrize("applied", [False, True])
def test_advice_leaves_modes_buffers_hooks_and_random_streams_as_they_were(applied: bool) -> None:
    class Noisy(nn.Module):
        def forward(self, rows: Tensor) -> Tensor:
            return rows + torch.rand(()) + np.random.rand() + random.random()

    model = nn.Sequential(nn.Linear(8, 8), nn.Dropout(), nn.BatchNorm1d(8), Noisy())
    model[2].eval()
    plan = plan_of(model, [{"match": "0", "action": "Insert", "kind": "Standard"}])
    if applied:
        apply_plan(plan, model)
    before = [module.training for module in model.modules()], [len(module._forward_hooks) for module in model.modules()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    streams = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    assert "batch norm" in with_warnings(plan, model, ROWS, FEW)[0].warnings[0]
    assert before == ([module.training for module in model.modules()], [len(module._forward_hooks) for module in model.modules()])
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), streams[0])
    assert np.array_equal(np.random.get_state()[1], streams[1])
    assert random.getstate() == streams[2]
