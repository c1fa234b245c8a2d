"""Training and evaluation mode, each switch proved: by the modules' flags and by whether a forward draws random numbers."""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dropout_api.candidate import PlanRow
from dropout_api.names import ExitCode
from dropout_trainer.dropout.schedules import rate_at
from dropout_trainer.errors import StageFailure


@dataclass
class Draws:
    """Whether anything drew from a global random generator within the block; set at its end."""

    happened: bool = False


@dataclass(frozen=True)
class Generators:
    """The states of the global generators of python, numpy and torch, on the CPU and on every GPU in use."""

    python: tuple[Any, ...]
    numpy: tuple[Any, ...]
    torch: list[Tensor]

    @staticmethod
    def now() -> "Generators":
        gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
        return Generators(random.getstate(), tuple(np.random.get_state()), [torch.get_rng_state(), *gpus])

    def same(self, other: "Generators") -> bool:
        numbers = all(np.array_equal(mine, theirs) for mine, theirs in zip(self.numpy, other.numpy, strict=True))
        tensors = all(map(torch.equal, self.torch, other.torch))
        return numbers and tensors and self.python == other.python

    def restore(self) -> None:
        random.setstate(self.python)
        np.random.set_state(self.numpy)
        torch.set_rng_state(self.torch[0])
        if self.torch[1:]:
            torch.cuda.set_rng_state_all(self.torch[1:])


@contextmanager
def drawing(restore: bool = False) -> Iterator[Draws]:
    """Watches the global generators; with `restore` it leaves them as they were."""
    before, draws = Generators.now(), Draws()
    yield draws
    draws.happened = not before.same(Generators.now())
    if restore and draws.happened:
        before.restore()


def require_active(plan: Sequence[PlanRow], draws: Draws, t: float = 0.0) -> None:
    """Raises StageFailure when the plan has a rate above 0 but a forward in training mode drew nothing: its dropout is off.

    `t` is the share of all steps that are done, 0 to 1.
    """
    live = [row.layer for row in plan if rate_at(row.rate, row.schedule, t) > 0]
    if live and not draws.happened:
        message = (
            f"the dropout plan sets a rate for {', '.join(live[:10])}, but a forward in training mode drew no random number; "
            "does forward() use these layers, and does train() reach them?"
        )
        raise StageFailure("DropoutInactive", message, ExitCode.USER_CODE)
