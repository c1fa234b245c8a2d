"""Whatever a plan adds, parameters keep names and values, eval mode answers as before, copies are whole, and what was changed
behind its back is found."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dropout_trainer.dropout import AppliedPlan, DropoutSpec, FastDropout, Implementation, apply_plan, make_plan, resolve_fast
from dropout_trainer.errors import StageFailure
from dropout_trainer.train.export import eval_copy, export_program
from dropout_trainer.train.mc_export import export_mc

RULES: list[dict[str, Any]] = [
    {"match": "embedding", "action": "Wrap", "kind": "Embedding"}, {"match": "lstm", "action": "Wrap", "kind": "DropConnect"},
    {"match": "lstm", "action": "Insert", "kind": "Variational"}, {"match": "branch", "action": "Wrap", "kind": "StochasticDepth"},
    {"match": "branch", "action": "Insert", "kind": "Standard"}, {"match": "norm", "action": "Insert", "kind": "Standard"},
    {"match": "conv", "action": "Wrap", "kind": "DropConnect"}, {"match": "conv", "action": "Insert", "kind": "Spatial"},
    {"match": "selu", "action": "Insert", "kind": "Alpha"}, {"match": "output", "action": "Wrap", "kind": "DropConnect"},
]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 8)
        self.dropout = nn.Dropout(0.1)
        self.lstm = nn.LSTM(8, 8, batch_first=True)
        self.branch = nn.Sequential(nn.Linear(8, 8), nn.ReLU())
        self.conv, self.norm, self.selu = nn.Conv1d(8, 8, 3), nn.BatchNorm1d(8), nn.SELU()
        self.output = nn.Linear(8, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        rows = self.lstm(self.dropout(self.embedding(tokens)))[0]
        rows = rows + self.branch(rows)
        return self.output(self.selu(self.norm(self.conv(rows.transpose(1, 2)))).mean(2))


def applied(rate: float = 0.3, fast: bool = True) -> AppliedPlan:
    torch.manual_seed(0)
    model = Net()
    spec = DropoutSpec.model_validate({"rate": rate, "layers": [{"rate": rate, **fields} for fields in RULES]})
    return apply_plan(make_plan(model, spec, fast=fast), model)


def fresh() -> Net:
    torch.manual_seed(0)
    return Net()


TOKENS = torch.randint(0, 20, (6, 7), generator=torch.Generator().manual_seed(1))


def dropouts(program: torch.export.ExportedProgram) -> list[bool]:
    """Of each random op in a program whether it is on. The LSTM has none of its own."""
    draws = torch.Tag.nondeterministic_seeded
    nodes = [node for node in program.graph.nodes if draws in getattr(node.target, "tags", ()) or "dropout" in str(node.target)]
    assert all("dropout" in str(node.target) or node.target is torch.ops.aten.lstm.input for node in nodes)
    return [bool(node.args[2]) for node in nodes if "dropout" in str(node.target)]


def test_a_state_dict_fits_both_ways() -> None:
    model = applied().model
    assert list(model.state_dict()) == list(fresh().state_dict())
    fresh().load_state_dict(model.state_dict(), strict=True)
    assert [name for name, _ in model.named_parameters()] == [name for name, _ in fresh().named_parameters()]


def test_eval_mode_answers_as_before_and_draws_nothing() -> None:
    state = torch.get_rng_state()
    assert torch.equal(applied().model.eval()(TOKENS), fresh().eval()(TOKENS))
    torch.set_rng_state(state)
    model, state = applied().model.eval(), torch.get_rng_state()
    model(TOKENS)
    assert torch.equal(torch.get_rng_state(), state)


def test_every_place_is_live_in_training_mode() -> None:
    plan = applied()
    for row in plan.rows:
        other = applied(rate=0.0).model.train()
        again = apply_plan([one.model_copy(update={"rate": 0.5}) if one == row.model_copy(update={"rate": 0.0}) else one
                            for one in applied(rate=0.0).rows], other)
        assert sum(one.rate > 0 for one in again.rows) == 1
        torch.manual_seed(0)
        first = other(TOKENS)
        assert not torch.equal(first, other(TOKENS)), row


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_has_the_whole_plan_and_a_mode_of_its_own(duplicate: Callable[[nn.Module], nn.Module]) -> None:
    plan = applied()
    twin = duplicate(plan.model)
    AppliedPlan(plan.rows, twin).check()
    twin.eval()
    assert torch.equal(twin(TOKENS), twin(TOKENS))
    assert not torch.equal(plan.model.train()(TOKENS), plan.model(TOKENS))
    torch.manual_seed(7)
    wanted = plan.model(TOKENS)
    torch.manual_seed(7)
    assert torch.equal(twin.train()(TOKENS), wanted)
    apply_plan([row.model_copy(update={"rate": 0.0}) for row in plan.rows], twin)
    plan.check()


def test_applying_twice_adds_nothing_twice() -> None:
    plan = applied()
    again = apply_plan(plan.rows, plan.model)
    again.check()
    assert [len(module._forward_hooks) for module in (again.model.lstm, again.model.branch)] == [1, 2]


def test_training_moves_the_same_weights() -> None:
    model = applied().model.train()
    before = {name: value.clone() for name, value in model.named_parameters()}
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(3):
        optimizer.zero_grad()
        model(TOKENS).square().sum().backward()
        optimizer.step()
    assert all(not torch.equal(value, before[name]) for name, value in model.named_parameters())
    assert torch.equal(model.eval()(TOKENS), _with(model.state_dict()).eval()(TOKENS))


def _with(weights: dict[str, Tensor]) -> nn.Module:
    model = fresh()
    model.load_state_dict(weights)
    return model


def test_an_eval_program_is_that_of_the_model_without_a_plan() -> None:
    model = applied().model
    program, plain = export_program(eval_copy(model), TOKENS), export_program(eval_copy(fresh()), TOKENS)
    assert not any(dropouts(program))
    assert torch.equal(program.module()(TOKENS), plain.module()(TOKENS))
    others = [[str(node.target) for node in one.graph.nodes if "dropout" not in str(node.target)] for one in (program, plain)]
    assert others[0] == others[1]
    assert list(program.state_dict) == list(plain.state_dict)


def test_an_mc_program_has_every_place_live_and_torchs_own_ops() -> None:
    plan = applied()
    live = dropouts(export_mc(eval_copy(plan.model), TOKENS))
    assert live == [True] * len(plan.rows)
    assert type(plan.model.dropout) is FastDropout


def test_a_copy_for_export_has_nothing_in_training_mode() -> None:
    model = applied().model.train()
    model(TOKENS)
    copied = eval_copy(model)
    assert not any(module.training for module in (*copied.modules(), copied.branch.plan_dropout, copied.branch.plan_wrap))
    assert type(copied.branch.plan_dropout) is nn.Dropout


def test_compiled_it_is_one_graph_of_torchs_own_ops() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4)), nn.Dropout(0.3))
    rules = [{"match": "0", "action": "Wrap", "kind": "DropConnect", "rate": 0.3}]
    rules += [{"match": match, "action": "Insert", "kind": "Standard", "rate": 0.3} for match in ("0", "1")]
    apply_plan(make_plan(model, DropoutSpec.model_validate({"layers": rules}), fast=True), model)
    graphs: list[torch.fx.GraphModule] = []

    def keep(graph: torch.fx.GraphModule, inputs: object) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    compiled = torch.compile(model.train(), backend=keep, fullgraph=True)
    assert not torch.equal(compiled(torch.ones(8, 4)), compiled(torch.ones(8, 4)))
    assert [graph.code.count("nn.functional.dropout(") for graph in graphs] == [4]
    assert "random_" not in graphs[0].code


@pytest.mark.parametrize("host", [nn.Sequential(), nn.Sequential(nn.Identity()), nn.Identity()], ids=["empty", "sequence", "leaf"])
def test_what_is_added_to_a_container_acts_once(host: nn.Module) -> None:
    model = nn.Sequential(host)
    spec = DropoutSpec.model_validate({"layers": [{"match": "0", "action": "Insert", "kind": "Standard", "rate": 0.5}]})
    apply_plan(make_plan(model, spec, fast=True), model)
    assert set(torch.unique(model(torch.ones(64))).tolist()) == {0.0, 2.0}


def test_dropout_behind_a_norm_that_is_kept_in_eval_mode_stays_on() -> None:
    model = nn.Sequential(nn.BatchNorm1d(4))
    spec = DropoutSpec.model_validate({"layers": [{"match": "0", "action": "Insert", "kind": "Standard", "rate": 0.5}]})
    apply_plan(make_plan(model, spec, fast=True), model)
    model.train()
    model[0].training = False
    assert bool((model(torch.ones(64, 4)) == 0).any())


TAMPERED: dict[str, tuple[Callable[[Any], object], str]] = {
    "a rate": (lambda model: setattr(model.dropout, "p", 0.2), r"layer dropout \(Dropout\) was set to rate 0.3 but reads back 0.2"),
    "an added rate": (lambda model: setattr(model.norm.plan_dropout, "p", 0.2), r"layer norm .* reads back 0.2"),
    "a weight's rate": (lambda model: setattr(model.conv, "drop_connect", 0.0), r"layer conv .* reads back 0"),
    "an implementation": (lambda model: setattr(model.dropout, "__class__", nn.Dropout), "set to implementation Fast but has Native"),
    "a layer": (lambda model: setattr(model, "dropout", nn.Identity()), r"layer dropout \(Dropout\) should be next"),
    "a hook": (lambda model: model.norm._forward_hooks.clear(), r"layer norm .* should be next"),
    "the last hook": (lambda model: setattr(model, "output", nn.Linear(8, 3)), r"10 places of dropout, its plan 11 \(output\)"),
    "a kind": (lambda model: setattr(model, "dropout", nn.Dropout1d(0.3)), "set to kind Standard but has Spatial"),
}


@pytest.mark.parametrize("what", TAMPERED)
def test_what_was_changed_later_is_found(what: str) -> None:
    plan = applied()
    tamper, said = TAMPERED[what]
    plan.check()
    tamper(plan.model)
    with pytest.raises(StageFailure, match=said):
        plan.check()


def test_a_plan_of_another_model_is_refused() -> None:
    with pytest.raises(StageFailure, match=r"names layer embedding .* which the model does not have"):
        apply_plan(applied().rows, nn.Sequential(nn.Dropout(0.1)))


@pytest.mark.parametrize(("implementation", "device", "compiled", "fast"), [
    ("Auto", "cpu", False, True), ("Auto", "cpu", True, False), ("Auto", "cuda", False, False),
    ("Fast", "cuda", False, True), ("Native", "cpu", False, False), ("Native", "cpu", True, False),
])
def test_auto_is_fast_on_a_cpu_without_compile(implementation: str, device: str, compiled: bool, fast: bool) -> None:
    assert resolve_fast(Implementation(implementation), torch.device(device), compiled) is fast


def test_fast_with_compile_is_refused() -> None:
    with pytest.raises(StageFailure, match=r"spec.dropout.implementation: Fast does nothing with spec.training.compile"):
        resolve_fast(Implementation.FAST, torch.device("cpu"), True)
