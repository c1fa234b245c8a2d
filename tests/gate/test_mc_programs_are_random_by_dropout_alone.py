"""A candidate's MC-dropout program is judged the other way round. What is written is a candidate; what comes back is a report."""

import copy
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - as everybody calls it
from dropout_testing import zoo
from dropout_testing.zoo import CLASSES, FEATURES
from torch import Tensor, nn

from dropout_api.candidate import MC, PROGRAM
from dropout_api.spec import ExportSpec
from dropout_api.verdict import Outcome
from dropout_trainer.gate import gate
from dropout_trainer.gate.checks.mc import MC_CHECKS
from dropout_trainer.gate.verdict import GateReport
from dropout_trainer.train.mc_export import with_dropout_on

ASKED = ExportSpec(mc_passes=8)


def perceptron(rate: float, depth: int = 2, activation: type[nn.Module] = nn.ReLU, dropout: type[nn.Module] = nn.Dropout) -> nn.Module:
    widths = [FEATURES, *[32] * depth]
    blocks = [nn.Sequential(nn.Linear(one, other), activation(), dropout(rate)) for one, other in pairwise(widths)]
    return nn.Sequential(*blocks, nn.Linear(32, CLASSES))


class Head(nn.Module):
    """Whatever answers features with features, between two linear layers."""

    def __init__(self, inner: nn.Module | None = None, width: int = 16) -> None:
        super().__init__()
        self.first, self.inner, self.last = nn.Linear(FEATURES, width), inner or nn.Identity(), nn.Linear(width, CLASSES)

    def hidden(self, x: Tensor) -> Tensor:
        return self.inner(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.hidden(F.relu(self.first(x))))


class Sequence(Head):
    """The same for what takes a sequence: four steps, of which the last counts."""

    def hidden(self, x: Tensor) -> Tensor:
        steps = torch.stack([x, 0.5 * x, -x, x * x], 1)
        answer = self.inner(steps, steps, steps) if isinstance(self.inner, nn.MultiheadAttention) else self.inner(steps)
        return (answer[0] if isinstance(answer, tuple) else answer)[:, -1]


class Functional(Head):
    def hidden(self, x: Tensor) -> Tensor:
        return F.dropout(x, 0.3, self.training)


class ScaledAttention(Head):
    def hidden(self, x: Tensor) -> Tensor:
        steps = torch.stack([x, 0.5 * x, -x, x * x], 1)
        return F.scaled_dot_product_attention(steps, steps, steps, dropout_p=0.3 if self.training else 0.0).sum(1)


class Branch(Head):
    """Stochastic depth: the whole residual branch of a row is dropped (Huang et al. 2016)."""

    def hidden(self, x: Tensor) -> Tensor:
        branch = torch.tanh(x)
        if self.training:
            branch = branch * x.new_empty(x.shape[0], 1).bernoulli_(0.8) / 0.8
        return x + branch


class Image(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Unflatten(1, (1, 2, FEATURES // 2)), nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout2d(0.2),
            nn.Flatten(), nn.LazyLinear(CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


SOUND: dict[str, Callable[[], nn.Module]] = {
    "a perceptron": lambda: perceptron(0.5),
    "a rate of a thousandth": lambda: perceptron(0.001),
    "a rate of nine tenths": lambda: perceptron(0.9),
    "a deep net": lambda: perceptron(0.4, 8),
    "a saturating net": lambda: perceptron(0.5, 3, nn.Sigmoid),
    "alpha dropout": lambda: perceptron(0.2, 3, nn.SELU, nn.AlphaDropout),
    "functional dropout": Functional,
    "attention dropout": ScaledAttention,
    "a transformer layer": lambda: Sequence(nn.TransformerEncoderLayer(16, 2, 32, 0.3, batch_first=True)),
    "multi-head attention": lambda: Sequence(nn.MultiheadAttention(16, 2, 0.3, batch_first=True)),
    "an LSTM": lambda: Sequence(nn.LSTM(16, 16, 2, dropout=0.4, batch_first=True)),
    "stochastic depth": Branch,
    "spatial dropout and batch norm": Image,
}


class Noise(Head):
    def hidden(self, x: Tensor) -> Tensor:
        return F.dropout(x, 0.3, self.training) + (0.1 * torch.randn_like(x) if self.training else 0)


class Unscaled(Head):
    def hidden(self, x: Tensor) -> Tensor:
        return x * torch.bernoulli(torch.full_like(x, 0.7)) if self.training else x


class Doubled(Head):
    def hidden(self, x: Tensor) -> Tensor:
        return F.dropout(x, 0.3, True) / 0.7 if self.training else x


class Unheard(Head):
    def hidden(self, x: Tensor) -> Tensor:
        return x + 0 * F.dropout(x, 0.3, self.training)


class Counting(Functional):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def hidden(self, x: Tensor) -> Tensor:
        if self.training:
            self.calls += 1
        return super().hidden(x)


def of_another_model(network: nn.Module) -> nn.Module:
    other = copy.deepcopy(network)
    for parameter in other.parameters():
        nn.init.normal_(parameter.data, std=0.3)
    return with_dropout_on(other)


BROKEN: dict[str, tuple[Callable[[], nn.Module], Callable[[nn.Module], nn.Module], list[str], str]] = {
    "another model's": (lambda: perceptron(0.5), of_another_model, ["mc_parity", "mc_mean"], "is not what the eval program has"),
    "the eval program": (lambda: perceptron(0.5), lambda net: net.eval(), ["mc_graph", "mc_varies"], "this is an eval program"),
    "norms in training mode": (Image, lambda net: net.train(), ["mc_graph", "mc_mean"], "aten.batch_norm (training=True)"),
    "other noise": (Noise, with_dropout_on, ["mc_graph", "mc_mean"], "aten.randn_like draws random numbers"),
    "dropout that is not scaled": (Unscaled, with_dropout_on, ["mc_mean"], "with its dropout averaged it answers otherwise"),
    "dropout that is scaled twice": (Doubled, with_dropout_on, ["mc_mean"], "with its dropout averaged it answers otherwise"),
    "dropout that nothing depends on": (Unheard, with_dropout_on, ["mc_varies"], "does not depend on its dropout"),
    "a buffer that is written": (Counting, with_dropout_on, ["mc_graph"], "writes to buffer 'calls'"),
}


@pytest.fixture
def judged(tmp_path: Path) -> Callable[[nn.Module, Callable[[nn.Module], nn.Module]], GateReport]:
    def judge(network: nn.Module, prepare: Callable[[nn.Module], nn.Module]) -> GateReport:
        network(torch.randn(4, FEATURES))
        folder = zoo.candidate(tmp_path / "candidate", network).folder
        zoo.add_mc(folder, prepare(network))
        return gate.inspect(folder, (), ASKED).report

    return judge


@pytest.mark.parametrize("name", SOUND)
def test_and_pass(name: str, judged: Callable[..., GateReport]) -> None:
    report = judged(SOUND[name](), with_dropout_on)

    assert report.passed, report.message
    assert [check.name for check in report.checks][-6:] == ["mc_archive", *MC_CHECKS]
    assert {check.outcome for check in report.checks if check.name in MC_CHECKS} == {Outcome.PASSED}


@pytest.mark.parametrize("name", BROKEN)
def test_or_are_refused(name: str, judged: Callable[..., GateReport]) -> None:
    build, prepare, checks, words = BROKEN[name]

    report = judged(build(), prepare)

    assert [check.name for check in report.failed] == checks
    assert words in report.message


def test_or_are_no_program(tmp_path: Path) -> None:
    folder = zoo.candidate(tmp_path, perceptron(0.5)).folder
    (folder / MC).write_bytes(b"PK nothing of the kind")
    zoo.seal(folder)

    assert [check.name for check in gate.inspect(folder, (), ASKED).report.failed] == ["mc_archive"]


def test_and_are_there_only_where_they_were_asked_for(tmp_path: Path) -> None:
    folder = zoo.candidate(tmp_path, perceptron(0.5)).folder
    assert "'mc.pt2' is missing from the candidate, but spec.export.mcPasses asks for it" in gate.inspect(folder, (), ASKED).report.message

    (folder / MC).write_bytes((folder / PROGRAM).read_bytes())
    zoo.seal(folder)
    report = gate.inspect(folder).report
    assert [check.name for check in report.failed] == ["digests"]
    assert "'mc.pt2' is part of the candidate, but spec.export.mcPasses does not ask for it" in report.message
