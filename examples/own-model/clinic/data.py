"""Ten measurements of 442 patients, and whether their disease had progressed a year later (Efron et al., 2004)."""

import numpy as np
import torch
from sklearn.datasets import load_diabetes

from dropout_trainer.data import Data, Split


def progression(threshold: float, seed: int) -> Data:
    """Whether the progression is above `threshold` (25 to 346); 70 % of the rows to train, 15 % each to validate and test."""
    table = load_diabetes()
    order = np.random.default_rng(seed).permutation(len(table.target))
    train, val, test = np.split(order, [int(0.7 * len(order)), int(0.85 * len(order))])
    mean, deviation = table.data[train].mean(0), table.data[train].std(0)

    def split(rows: np.ndarray) -> Split:
        inputs = torch.from_numpy((table.data[rows] - mean) / deviation).float()
        return Split(inputs=inputs, targets=torch.from_numpy(table.target[rows] > threshold).long())

    return Data(train=split(train), val=split(val), test=split(test), class_names=("steady", "progressed"))
