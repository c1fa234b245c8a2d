"""Every random stream's seed, derived from the job's one seed, and the switches that make torch repeatable.

A stream's seed is the first 32 bits of SHA-256 over `"{seed}/{stream}"`: streams are independent of each other, and a
new stream changes none of the old ones.
"""

import hashlib
import os
import random

import numpy as np
import torch

from dropout_api.spec import Determinism

STREAMS = ("python", "numpy", "torch", "split", "shuffle", "sample")
"""The global generators of python, numpy and torch; the split of the data; the order of batches; the sample of the
training set on which the loss in eval mode is measured."""


def derive(seed: int) -> dict[str, int]:
    """The seed of every stream, each in 0…2³²−1."""
    return {stream: int.from_bytes(hashlib.sha256(f"{seed}/{stream}".encode()).digest()[:4]) for stream in STREAMS}


def seed_everything(seeds: dict[str, int]) -> None:
    """Seeds the global generators, torch's on every device."""
    random.seed(seeds["python"])
    np.random.seed(seeds["numpy"])
    torch.manual_seed(seeds["torch"])


def generator(seeds: dict[str, int], stream: str) -> torch.Generator:
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
