"""Random networks: sound ones pass; the same with one live random op on a path that changes an output fails, and it is named."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - as everybody calls it
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from dropout_trainer.gate.inputs import Call
from dropout_trainer.gate.local import judge_module
from dropout_trainer.gate.verdict import GateReport

WIDTH = 8
pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning"), pytest.mark.timeout(900),
]


class Residual(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


class Attention(nn.Module):
    def __init__(self, rate: float) -> None:
        super().__init__()
        self.mha = nn.MultiheadAttention(WIDTH // 2, 2, dropout=rate, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.reshape(-1, 2, WIDTH // 2)
        return self.mha(tokens, tokens, tokens, need_weights=False)[0].reshape(-1, WIDTH)


class Steps(nn.Module):
    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rnn = nn.GRU(WIDTH // 2, WIDTH // 2, num_layers=2, dropout=rate, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.rnn(x.reshape(-1, 2, WIDTH // 2))[0].reshape(-1, WIDTH)


class Live(nn.Module):
    """Random in eval mode, too."""

    def __init__(self, draw: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.draw = draw

    def forward(self, x: Tensor) -> Tensor:
        return self.draw(x)


RATES = st.floats(0.05, 0.8)
LEAVES = st.one_of(
    st.builds(lambda: nn.Linear(WIDTH, WIDTH)), st.builds(lambda: nn.GELU()), st.builds(lambda: nn.LayerNorm(WIDTH)),
    st.builds(lambda: nn.BatchNorm1d(WIDTH)), st.builds(nn.Dropout, RATES), st.builds(nn.AlphaDropout, RATES),
    st.builds(Attention, RATES), st.builds(Steps, RATES), st.builds(lambda: nn.Softmax(-1)),
)
BLOCKS = st.one_of(LEAVES, st.builds(Residual, LEAVES), st.lists(LEAVES, min_size=2, max_size=3).map(lambda layers: nn.Sequential(*layers)))
NETWORKS = st.lists(BLOCKS, min_size=1, max_size=4)
DRAWS = st.sampled_from([
    lambda x: F.dropout(x, 0.4), lambda x: x + 0.1 * torch.randn_like(x), lambda x: x * torch.bernoulli(torch.full_like(x, 0.6)),
    lambda x: F.alpha_dropout(x, 0.3, training=True), lambda x: x * (torch.rand(len(x), 1) > 0.3),
    lambda x: F.rrelu(-x.abs(), training=True),
    lambda x: x + torch.from_numpy(np.random.normal(size=tuple(x.shape)).astype(np.float32)),
])
quick = settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


def judged(blocks: list[nn.Module], seed: int) -> GateReport:
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(4, WIDTH), *blocks, nn.Linear(WIDTH, 3))
    return judge_module(network, Call((torch.randn(5, 4),)))


@quick
@given(NETWORKS, st.integers(0, 1000))
def test_a_sound_network_passes(blocks: list[nn.Module], seed: int) -> None:
    report = judged(blocks, seed)

    assert report.passed, report.message


@quick
@given(NETWORKS, DRAWS, st.integers(0, 3), st.booleans(), st.integers(0, 1000))
def test_a_live_random_op_is_named(blocks: list[nn.Module], draw: Callable[[Tensor], Tensor], place: int, nested: bool, seed: int) -> None:
    place = min(place, len(blocks))
    live = Residual(Live(draw)) if nested else Live(draw)

    report = judged([*blocks[:place], live, *blocks[place:]], seed)

    assert not report.passed
    where = report.failed[0].where
    assert where is not None
    assert where.layer == f"{place + 1}.inner" if nested else f"{place + 1}", report.message
