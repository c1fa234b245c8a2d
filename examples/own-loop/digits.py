"""Handwritten digits of scikit-learn, 8 × 8 pixels, for the three programs of this folder."""

import torch
from sklearn.datasets import load_digits
from torch import Tensor

Part = tuple[Tensor, Tensor]


def digits(seed: int = 0) -> tuple[Part, Part, Part]:
    """Training, validation and test set, each as inputs [N, 1, 8, 8] in 0…1 and targets [N]; 1257, 270 and 270 rows."""
    table = load_digits()
    inputs = torch.from_numpy(table.images).float().unsqueeze(1) / 16
    targets = torch.from_numpy(table.target).long()
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(seed))
    train, val, test = (order[:1257], order[1257:1527], order[1527:])
    return (inputs[train], targets[train]), (inputs[val], targets[val]), (inputs[test], targets[test])
