"""Every stream has a seed of its own that follows from the job's seed alone and never changes."""

import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dropout_api.spec import Determinism
from dropout_trainer.train.seeds import STREAMS, derive, repeated, seed_everything, set_determinism


def test_golden_values() -> None:
    assert derive(42) == {
        "python": 1138195192, "numpy": 3944484310, "torch": 2479438813, "split": 2904188365, "shuffle": 2621807716, "sample": 2749843989,
        "augment": 826863038,
    }


@given(seed=st.integers(0, 2**32 - 1))
def test_streams_are_distinct_and_in_range(seed: int) -> None:
    seeds = derive(seed)
    assert tuple(seeds) == STREAMS
    assert len(set(seeds.values())) == len(STREAMS)
    assert all(0 <= value < 2**32 for value in seeds.values())


def test_seeding_repeats_all_global_generators() -> None:
    def draw() -> tuple[float, float, float]:
        seed_everything(derive(7))
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    assert draw() == draw()


@pytest.mark.parametrize(("level", "enabled", "warns"), [("Strict", True, False), ("WarnOnly", True, True)])
def test_determinism_levels(level: str, enabled: bool, warns: bool) -> None:
    set_determinism(Determinism(level))
    assert torch.are_deterministic_algorithms_enabled() is enabled
    assert torch.is_deterministic_algorithms_warn_only_enabled() is warns


def test_determinism_off_leaves_torch_as_it_is() -> None:
    torch.use_deterministic_algorithms(False)
    set_determinism(Determinism.OFF)
    assert not torch.are_deterministic_algorithms_enabled()


def test_ranks_share_the_split_and_the_order_but_no_mask() -> None:
    every = [derive(42, rank) for rank in range(8)]
    for stream in ("split", "shuffle", "sample"):
        assert len({seeds[stream] for seeds in every}) == 1
    for stream in ("python", "numpy", "torch", "augment"):
        assert len({seeds[stream] for seeds in every}) == 8
    assert derive(42, 0) == derive(42)


def test_repeats_have_seeds_of_their_own_and_the_first_is_the_job() -> None:
    assert repeated(42, 0) == 42
    assert len({repeated(42, number) for number in range(50)}) == 50
    assert repeated(42, 1) != repeated(43, 1)
