"""Somebody's models, as `dropout check` is given them: `dropout_testing.shop:NAME`."""

import sys
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - as everybody calls it
from torch import Tensor, nn


class Ranker(nn.Module):
    """Its dropout is off after eval()."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.drop, self.last = nn.Linear(4, 8), nn.Dropout(0.3), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.drop(self.first(x)))


class Live(Ranker):
    """Its dropout is on after eval()."""

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.dropout(self.first(x), 0.3))


class Keywords(Ranker):
    def forward(self, *, query: Tensor, weight: Tensor) -> Tensor:
        return super().forward(query * weight)


class OwnExample(Ranker):
    """As Lightning's modules have it."""

    example_input_array = torch.ones(3, 4)


class DummyInputs(Keywords):
    """As Hugging Face's models have it."""

    @property
    def dummy_inputs(self) -> dict[str, Tensor]:
        return {"query": torch.ones(3, 4), "weight": torch.full((3, 4), 2.0)}


class Raising(Ranker):
    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("the shop is closed")


class Branching(Ranker):
    """torch.export cannot take it."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if bool(x.sum() > -1e9) else x * 2)


class Normed(nn.Module):
    """A forward in training mode moves its buffers, one of which is bound anew."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.calls = self.calls + 1
        return self.norm(x)


instance = Ranker()
number = 7


def example() -> Tensor:
    return torch.randn(3, 4)


def sound() -> tuple[nn.Module, Tensor]:
    return Ranker(), example()


def live() -> tuple[nn.Module, Tensor]:
    return Live(), example()


def closed() -> tuple[nn.Module, Tensor]:
    return Raising(), example()


def branching() -> tuple[nn.Module, Tensor]:
    return Branching(), example()


def chatty() -> tuple[nn.Module, Tensor]:
    print("the shop opens")
    return Ranker(), example()


def burning() -> nn.Module:
    raise ValueError("the shop burns\nand more lines")


def leaving() -> nn.Module:
    sys.exit(3)


def sized(width: int) -> nn.Module:
    return nn.Linear(width, width)


def nothing() -> Any:
    return {"model": Ranker()}
