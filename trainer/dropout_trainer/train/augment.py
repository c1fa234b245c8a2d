"""Random changes of training batches."""

from collections.abc import Sequence

import torch
from torch import Tensor

from dropout_api.spec import Augmentation


def augment(inputs: Tensor, steps: Sequence[Augmentation], generator: torch.Generator) -> Tensor:
    return inputs


def check(steps: Sequence[Augmentation], data: object) -> None:
    """Fits."""
