"""Elements are dropped independently of each other, each with the rate in 1/65536; what is kept has the exact scale.

Seeds are fixed, so a result never changes. With P_VALUE and some 60 tests a sound generator would fail one seed in 1,600, and
2¹⁸ elements show a rate that is wrong by 0.005, or a bit of a lane that is stuck.
"""

from itertools import product

import numpy as np
import pytest
import torch
from scipy import stats

from dropout_trainer.dropout import FastDropout, fast, fast_dropout

RATES = [0.01, 0.05, 0.1, 0.25, 0.3, 0.5, 0.6, 0.75, 0.9]
ELEMENTS = 1 << 18
P_VALUE = 1e-5
LEAST_EXPECTED = 5


def kept(rate: float, seed: int = 0, elements: int = ELEMENTS) -> np.ndarray:
    torch.manual_seed(seed)
    return (fast_dropout(torch.ones(elements), rate) != 0).numpy()


def exact(rate: float) -> float:
    return round((1 - rate) * 65536) / 65536


def chi_square(observed: np.ndarray, probabilities: np.ndarray) -> float:
    """The p-value of counts; cells that are expected too rarely for the approximation count as one."""
    expected = probabilities * observed.sum()
    rare = expected < LEAST_EXPECTED
    if rare.any():
        observed, expected = np.append(observed[~rare], observed[rare].sum()), np.append(expected[~rare], expected[rare].sum())
    return float(stats.chisquare(observed, expected).pvalue)


def patterns(mask: np.ndarray, rate: float) -> float:
    """The p-value of the sixteen patterns of four neighbours, the lanes of one word, being independent with that rate."""
    four = mask.reshape(-1, 4).astype(int) @ [8, 4, 2, 1]
    keep = exact(rate)
    probabilities = np.array([np.prod([keep if bit else 1 - keep for bit in bits]) for bits in product((0, 1), repeat=4)])
    return chi_square(np.bincount(four, minlength=16), probabilities)


@pytest.mark.parametrize("rate", RATES)
def test_the_share_that_is_kept_is_the_rates(rate: float) -> None:
    mask = kept(rate)
    assert stats.binomtest(int(mask.sum()), ELEMENTS, exact(rate)).pvalue > P_VALUE


@pytest.mark.parametrize("rate", RATES)
def test_lanes_of_a_word_are_independent(rate: float) -> None:
    assert patterns(kept(rate), rate) > P_VALUE


@pytest.mark.parametrize("distance", [1, 2, 4, 256])
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_neighbours_are_independent(rate: float, distance: int) -> None:
    mask = kept(rate)
    pairs = mask[:-distance] * 2 + mask[distance:]
    assert stats.chi2_contingency(np.bincount(pairs, minlength=4).reshape(2, 2)).pvalue > P_VALUE


@pytest.mark.parametrize("rate", RATES)
def test_mean_and_variance_are_those_of_scaled_dropout(rate: float) -> None:
    torch.manual_seed(1)
    values = fast_dropout(torch.ones(ELEMENTS, dtype=torch.float64), rate)
    variance = (1 - exact(rate)) / exact(rate)
    fourth = variance * (1 - 3 * exact(rate) * (1 - exact(rate))) / exact(rate) ** 2  # of a scaled Bernoulli, about its mean
    sigmas = stats.norm.isf(P_VALUE / 2)
    assert abs(float(values.mean()) - 1) < sigmas * (variance / ELEMENTS) ** 0.5
    assert abs(float(values.var()) - variance) < sigmas * (max(fourth - variance**2, 1e-9) / ELEMENTS) ** 0.5 + 1e-5


def test_these_tests_would_see_a_bit_that_is_always_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast, "LOWEST_WORD", 0)  # torch's own default, which leaves the sign bit out
    assert patterns(kept(0.5), 0.5) < P_VALUE


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("rate", RATES)
def test_what_is_kept_has_the_exact_scale(rate: float, dtype: torch.dtype) -> None:
    values = fast_dropout(torch.full((999,), 3.0, dtype=dtype), rate)
    wanted = torch.tensor([0.0, 3 / exact(rate)], dtype=torch.float64).to(dtype)
    found = torch.unique(values)
    assert len(found) == 2
    torch.testing.assert_close(found, wanted, rtol=0 if dtype in fast.ROUNDED else 4 * torch.finfo(dtype).eps, atol=0)


@pytest.mark.parametrize("rate", [0.0, 1e-7, 1 - 1e-7, 1.0])
def test_rates_that_sixteen_bits_cannot_tell_from_0_or_1_are_left_to_torch(rate: float) -> None:
    torch.manual_seed(0)
    mine = fast_dropout(torch.ones(1000), rate)
    torch.manual_seed(0)
    assert torch.equal(mine, torch.nn.functional.dropout(torch.ones(1000), rate))


def test_one_seed_gives_one_mask_whatever_the_memory_holds() -> None:
    rows = torch.randn(64, 32)
    torch.manual_seed(5)
    first = fast_dropout(rows, 0.3)
    for other in (rows, rows.t().contiguous().t(), torch.randn(128, 64)[::2, ::2].copy_(rows)):
        torch.manual_seed(5)
        assert torch.equal(fast_dropout(other, 0.3), first)


def test_no_two_layers_and_no_two_passes_share_a_mask() -> None:
    torch.manual_seed(0)
    one, other, ones = FastDropout(0.5), FastDropout(0.5), torch.ones(ELEMENTS)
    masks = torch.stack([layer(ones) != 0 for layer in (one, other, one, other)]).float()
    correlations = torch.corrcoef(masks) - torch.eye(4)
    assert float(correlations.abs().max()) < stats.norm.isf(P_VALUE / 2) / ELEMENTS**0.5
