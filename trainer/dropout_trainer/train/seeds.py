"""Every random stream's seed, derived from the job's one seed, and the switches that make torch repeatable.

A stream's seed is the first 32 bits of SHA-256 over `"{seed}/{stream}"`, of a rank above 0 over `"{seed}/{stream}/{rank}"`: streams
are independent of each other, and a new stream changes none of the old ones.
"""

import hashlib
import os
import random
from collections.abc import Mapping

import numpy as np
import torch

from dropout_api.spec import Determinism

SHARED = ("split", "shuffle", "sample")
"""The same on all ranks: the split of the data; the order of batches; the sample of the training set on which the loss in eval mode is
measured."""
OWN = ("python", "numpy", "torch", "augment")
"""Of each rank its own, so that no two draw the same masks: the global generators of python, numpy and torch; augmentation."""
STREAMS = (*OWN, *SHARED)


def derive(seed: int, rank: int = 0) -> dict[str, int]:
    """The seed of every stream, each in 0…2³²−1."""
    return {stream: _number(f"{seed}/{stream}" + (f"/{rank}" if rank and stream in OWN else "")) for stream in STREAMS}


def repeated(seed: int, repeat: int) -> int:
    """The job's seed for its `repeat`-th repetition, counted from 0; that one has the seed itself."""
    return seed if repeat == 0 else _number(f"{seed}/repeat/{repeat}")


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4])


def seed_everything(seeds: Mapping[str, int]) -> None:
    """Seeds the global generators, torch's on every device."""
    random.seed(seeds["python"])
    np.random.seed(seeds["numpy"])
    torch.manual_seed(seeds["torch"])


def generator(seeds: Mapping[str, int], stream: str) -> torch.Generator:
    """A CPU generator of its own for `stream`."""
    return torch.Generator().manual_seed(seeds[stream])


def set_determinism(level: Determinism) -> None:
    """Strict makes torch raise at an operation without a deterministic form, WarnOnly makes it warn, Off changes nothing."""
    if level is Determinism.OFF:
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it once, when CUDA starts
    torch.use_deterministic_algorithms(True, warn_only=level is Determinism.WARN_ONLY)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # costs time, repeats nothing
    torch.backends.cudnn.benchmark = False
