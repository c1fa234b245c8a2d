"""The device on which tests train: the CPU, or this machine's GPU where the environment says `DROPOUT_TEST_DEVICE=cuda` (`make gpu`)."""

import os
from typing import Any

from torch import Tensor, nn

DEVICE = os.environ.get("DROPOUT_TEST_DEVICE", "cpu")
GPU: dict[str, Any] = {"nvidia.com/gpu": 1}
LIMITS: dict[str, Any] = GPU if DEVICE == "cuda" else {}
"""For the resources of a spec."""


class Greedy(nn.Module):
    """In training it wants four terabytes."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs + inputs.new_empty(1 << 40)[:0].sum() if self.training else inputs


def greedy(input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    """As a model's factory."""
    size = 1
    for length in input_shape:
        size *= length
    return nn.Sequential(nn.Flatten(), Greedy(), nn.Dropout(0.1), nn.Linear(size, num_outputs))
