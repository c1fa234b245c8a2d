"""The gate's checks of a live model pass with dropout of every kind that a plan can add, and see that it is scaled right."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from dropout_api.verdict import CheckResult, Outcome
from dropout_trainer.dropout import DropoutSpec, apply_plan, make_plan
from dropout_trainer.gate.gate import attest
from dropout_trainer.gate.inputs import Call, Inputs
from dropout_trainer.train.export import eval_copy

ROWS, TOKENS, SEQUENCES = torch.randn(8, 6), torch.randint(0, 20, (8, 5)), torch.randn(8, 6, 5)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Sequential(nn.Linear(6, 6), nn.Tanh())

    def forward(self, rows: Tensor) -> Tensor:
        answer: Tensor = rows + self.branch(rows)
        return answer


class Last(nn.Module):
    """The answer at the last step of a recurrent layer."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(5, 6, batch_first=True)

    def forward(self, sequences: Tensor) -> Tensor:
        answer: Tensor = self.lstm(sequences)[0][:, -1]
        return answer


@dataclass(frozen=True)
class Case:
    make: Callable[[], nn.Module]
    match: str
    action: str
    kind: str
    inputs: Tensor
    measured: str = ""
    """Layer whose scale the gate can measure."""


CASES = [
    Case(lambda: nn.Linear(6, 6), "0", "Insert", "Standard", ROWS),
    Case(lambda: nn.Conv1d(6, 6, 1), "0", "Insert", "Spatial", SEQUENCES, "0.plan_dropout"),
    Case(lambda: nn.SELU(), "0", "Insert", "Alpha", ROWS),
    Case(Last, "0.lstm", "Insert", "Variational", SEQUENCES, "0.lstm.plan_dropout"),
    Case(lambda: nn.Embedding(20, 6), "0", "Wrap", "Embedding", TOKENS, "0.plan_wrap"),
    Case(lambda: nn.Linear(6, 6), "0", "Wrap", "DropConnect", ROWS, "0"),
    Case(Last, "0.lstm", "Wrap", "DropConnect", SEQUENCES),
    Case(Residual, "0.branch", "Wrap", "StochasticDepth", ROWS),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.kind} to {case.match}")
def test_every_check_passes(case: Case) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(case.make(), nn.Flatten(), nn.Tanh(), nn.LazyLinear(3))
    model(case.inputs)
    rule = {"match": case.match, "action": case.action, "kind": case.kind, "rate": 0.5}
    apply_plan(make_plan(model, DropoutSpec.model_validate({"layers": [rule]}), fast=True), model)
    found: dict[str, CheckResult] = {check.name: check for check in attest(eval_copy(model), Inputs(Call((case.inputs,))))}
    scaled = found.pop("expectation")
    assert {check.outcome for check in found.values()} == {Outcome.PASSED}, found
    assert scaled.outcome is (Outcome.PASSED if case.measured else Outcome.NOT_APPLICABLE), scaled
    assert case.measured in scaled.evidence
