"""A network with two towers, each with a dropout layer of its own, as a job's plan can name them: `towers.0.2`."""

import torch
from torch import Tensor, nn


class TwoTowers(nn.Module):
    """One tower reads the numbers as they are, the other their squares."""

    def __init__(self, features: int, width: int, rate: float, classes: int) -> None:
        super().__init__()
        self.towers = nn.ModuleList(nn.Sequential(nn.Linear(features, width), nn.ReLU(), nn.Dropout(rate)) for _ in range(2))
        self.head = nn.Linear(2 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.cat([self.towers[0](x), self.towers[1](x * x)], dim=1))


def network(width: int, rate: float, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    return TwoTowers(input_shape[0], width, rate, num_classes)
