"""The global random streams that a forward could read: torch, numpy, python."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

State = tuple[bytes, Any, Any]


@contextmanager
def preserved() -> Iterator[None]:
    """Leaves the streams as they were, whatever runs inside."""
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])


def seed(number: int) -> None:
    """Seeds all three, each differently."""
    torch.default_generator.manual_seed(number)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(number)
    np.random.seed((number + 1) % 2**32)
    random.seed(number + 2)


def fingerprint() -> State:
    """Equal for equal states of all three."""
    name, keys, *rest = np.random.get_state()
    return torch.get_rng_state().numpy().tobytes(), (name, np.asarray(keys).tobytes(), *rest), random.getstate()
