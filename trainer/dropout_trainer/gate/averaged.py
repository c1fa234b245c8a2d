"""An MC-dropout program with each draw of its dropout replaced by what it is on average: it must answer as in eval mode.

That is what separates right from wrong exactly. The average of many passes does not: a net is not linear, so the mean of its answers
is not the answer to the mean (Jensen), by as much as a wrong scale would move it. Torch's own dropout multiplies by 0 or 1 / (1 - p),
on average by 1, so there it means off. (Alpha dropout keeps mean and variance of standard inputs alone, and is switched off as
eval() does.) A mask that is written out, as in stochastic depth, becomes its probability.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.fx import GraphModule, Node

from dropout_trainer.gate.candidate import Predictor
from dropout_trainer.gate.ops import is_dropout, named, op_name

OFF = {"train": False, "dropout_p": 0.0}
"""Arguments that switch an op's dropout off, by their name in its schema."""


@dataclass(frozen=True)
class Averaged(Predictor):
    """The program, with the average in place of each draw."""

    @cached_property
    def module(self) -> GraphModule:
        module: Any = self.program.module()
        for part in module.modules():  # branches and loop bodies are modules of their own
            if isinstance(part, GraphModule):
                for node in part.graph.nodes:
                    _average(node)
                part.recompile()
        return module  # type: ignore[no-any-return]


def _average(node: Node) -> None:
    target: Any = node.target
    if not isinstance(target, OpOverload) or not is_dropout(target, named(target, node.args, node.kwargs)):
        return
    if "bernoulli" in op_name(target):
        node.target = mean_in_place if op_name(target).endswith("_") else mean
        return
    places = {argument.name: index for index, argument in enumerate(target._schema.arguments)}
    for name in OFF.keys() & places.keys():
        if places[name] < len(node.args):
            node.update_arg(places[name], OFF[name])
        else:
            node.update_kwarg(name, OFF[name])


def mean(drawn: Tensor, p: Tensor | float | None = None, *, generator: torch.Generator | None = None) -> Tensor:
    """What torch.bernoulli gives on average: its probabilities."""
    return drawn.clone() if p is None else torch.ones_like(drawn) * p


def mean_in_place(drawn: Tensor, p: Tensor | float = 0.5, *, generator: torch.Generator | None = None) -> Tensor:
    """The same for Tensor.bernoulli_."""
    return drawn.copy_(mean(drawn, p))
