"""What an animal of the zoo is, and how it is judged."""

import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from dropout_trainer.gate.local import Options, as_call, judge_module, judge_program
from dropout_trainer.gate.verdict import GateReport

Example = Callable[[], Any]


@dataclass(frozen=True)
class Sound:
    build: Callable[[], nn.Module]
    example: Example
    options: Options = field(default_factory=Options)


@dataclass(frozen=True)
class Broken:
    build: Callable[[], nn.Module]
    example: Example
    check: str
    """The first check that must fail."""
    words: str
    """What the report's message must hold, divided by |: op and layer, where they can be told."""
    how: Literal["module", "as-is", "program"] = "module"
    """Judged after eval(), in the mode that it is in, or as the program that an export in training mode gives."""


def floats(*shape: int) -> Example:
    return lambda: torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def integers(high: int, *shape: int) -> Example:
    return lambda: torch.randint(0, high, shape, generator=torch.Generator().manual_seed(1))


def judge(animal: Sound | Broken) -> GateReport:
    torch.manual_seed(0)
    module, example = animal.build(), as_call(animal.example())
    if isinstance(animal, Sound):
        return judge_module(module, example, animal.options)
    if animal.how != "program":
        return judge_module(module, example, Options(as_is=animal.how == "as-is"))
    with tempfile.TemporaryDirectory(prefix="zoo-") as folder, warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        shapes = tuple({0: torch.export.Dim.AUTO} for _ in example.args)
        path = Path(folder) / "program.pt2"
        torch.export.save(torch.export.export(module.train(), example.args, dynamic_shapes=shapes), path)
        return judge_program(path)


def as_told(animal: Broken, report: GateReport) -> bool:
    """Whether the right check fails first, and the message names what it must."""
    return not report.passed and report.failed[0].name == animal.check and all(word in report.message for word in animal.words.split("|"))
