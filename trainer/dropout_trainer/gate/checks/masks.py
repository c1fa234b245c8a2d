"""Finds dropout that is written out in a forward between other things, by following its mask through the ops.

A tensor that comes of random draws alone is a mask; where it is multiplied with data, what remains of the data on average
must be all of it. Only independent draws for every entry count, with two values of which one is zero: masked stripes and
mixtures are augmentation, and so is what hides parts of the model's own input.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from dropout_trainer.gate.inputs import Call
from dropout_trainer.gate.ops import op_name
from dropout_trainer.gate.target import moved, quiet
from dropout_trainer.gate.trace import Step, watching

DRAWS = 64
MULTIPLY = ("aten.mul", "aten.mul_", "aten.div", "aten.div_")
ADD = ("aten.add", "aten.add_", "aten.sub", "aten.sub_")
FRESH = ("aten.ones", "aten.ones_like", "aten.full", "aten.full_like", "aten.zeros", "aten.zeros_like", "aten.new_full", "aten.new_ones",
         "aten.new_zeros", "aten.scalar_tensor", "aten.lift_fresh", "aten.empty", "aten.empty_like", "aten.new_empty")

Place = tuple[str, str]
"""Layer and line."""


@dataclass
class Kept:
    """How much of the data a mask keeps, over all draws: 1 when it is scaled right."""

    values: list[float] = field(default_factory=list)

    @property
    def mean(self) -> float:
        return sum(self.values) / len(self.values)

    @property
    def error(self) -> float:
        mean, count = self.mean, len(self.values)
        return math.sqrt(sum((value - mean) ** 2 for value in self.values) / max(count - 1, 1) / count)


class _Follower:
    """Follows the masks of one forward. Tensors are kept alive, so that an id names one."""

    def __init__(self, inputs: list[Tensor]) -> None:
        self.given = {tensor.data_ptr() for tensor in inputs}
        self.alive: list[Tensor] = []
        self.draws: dict[int, int] = {}
        self.fresh: set[int] = set()
        self.kept: dict[int, Place] = {}
        self.data: dict[Place, Tensor] = {}
        self.found: dict[Place, float] = {}
        self.dropping: set[Place] = set()

    def see(self, step: Step, inputs: list[Tensor], outputs: list[Tensor]) -> None:
        self.alive += outputs
        name = op_name(step.target)
        masks = [tensor for tensor in inputs if id(tensor) in self.draws]
        data = [tensor for tensor in inputs if id(tensor) not in self.draws and id(tensor) not in self.fresh]
        if torch.Tag.nondeterministic_seeded in getattr(step.target, "tags", ()) and "dropout" not in name:
            self.draws |= {id(output): output.numel() for output in outputs}
        elif name in FRESH:
            self.fresh |= {id(output) for output in outputs}
        elif masks and not data:
            count = max(self.draws[id(mask)] for mask in masks)
            self.draws |= {id(output): count for output in outputs}
        elif name in MULTIPLY and len(data) == 1 and id(data[0]) in self.kept:
            self._measure(self.kept[id(data[0])], outputs[0])
        elif name in MULTIPLY and len(masks) == 1 and len(data) == 1:
            self._applied(step, data[0], masks[0], outputs[0])
        elif name in ADD and any(id(tensor) in self.kept for tensor in data) and masks:
            for tensor in data:
                self.found.pop(self.kept.get(id(tensor), ("", "")), None)

    def _applied(self, step: Step, data: Tensor, mask: Tensor, output: Tensor) -> None:
        independent = self.draws[id(mask)] == mask.numel()
        values = torch.unique(mask.detach().double())
        own_input = data.data_ptr() in self.given
        # At a low rate a draw may drop nothing. It counts as well: without it the average would be that of the others, and too low.
        zero = float(values.abs().min()) == 0
        if independent and not own_input and len(values) <= 1 + zero and output.is_floating_point():
            place = (step.layer, step.source)
            self.dropping |= {place} if zero else set()
            self.data[place] = data.detach().clone()
            self._measure(place, output)

    def _measure(self, place: Place, output: Tensor) -> None:
        data = self.data[place].double()
        if output.shape == data.shape and float((data * data).sum()):
            self.kept[id(output)] = place
            self.found[place] = float((output.detach().double() * data).sum() / (data * data).sum())


def masks(model: nn.Module, call: Call) -> dict[Place, Kept]:
    """What each mask in forwards in training mode keeps. The model is left in training mode, but for its norms."""
    found: dict[Place, Kept] = {}
    dropping: set[Place] = set()
    for number in range(DRAWS):
        copied = call.copy()
        follower = _Follower(copied.tensors)
        with torch.no_grad(), quiet(), moved(number), watching(model, lambda step, f=follower: _pass_on(f, step), raw=True):  # type: ignore[misc]
            model(*copied.args, **copied.kwargs)
        for place, value in follower.found.items():
            found.setdefault(place, Kept()).values.append(value)
        dropping |= follower.dropping
        if not found and number:
            break
    return {place: kept for place, kept in found.items() if place in dropping}


def _pass_on(follower: _Follower, step: Step) -> None:
    follower.see(step, list(step.inputs), list(step.outputs))


def compensated(model: nn.Module, call: Call, layer: str, factor: float) -> bool:
    """Whether a forward in eval mode multiplies by that factor in that layer: dropout may be scaled there instead."""
    factors: list[float] = []

    def see(step: Step) -> None:
        other: Any = named_scalar(step)
        if step.layer == layer and other is not None:
            factors.append(other)

    with torch.no_grad(), quiet(), moved(0), watching(model, see):
        copied = call.copy()
        model(*copied.args, **copied.kwargs)
    return any(abs(value - factor) < 0.05 for value in factors)


def named_scalar(step: Step) -> float | None:
    """The number that a step multiplies with."""
    name, other = op_name(step.target), step.given.get("other")
    if isinstance(other, Tensor) and other.dim() == 0:
        other = float(other)
    if name not in MULTIPLY or isinstance(other, bool) or not isinstance(other, int | float):
        return None
    value = float(other)
    return value if "mul" in name else (1 / value if value else None)


