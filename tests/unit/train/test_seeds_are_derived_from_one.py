"""Every stream has a seed of its own that follows from the job's seed alone and never changes."""

import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dropout_api.spec import Determinism
from dropout_trainer.train.seeds import STREAMS, derive, seed_everything, set_determinism


def test_golden_values() -> None:
    assert derive(42) == {
        "python": 1138195192, "numpy": 3944484310, "torch": 2479438813, "split": 2904188365, "shuffle": 2621807716, "sample": 2749843989,
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
