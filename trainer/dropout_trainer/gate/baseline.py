"""The registered version that a candidate is held against, as it was found once before the candidate was judged."""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from dropout_trainer.gate import programs
from dropout_trainer.gate.candidate import Predictor
from dropout_trainer.gate.inputs import Call
from dropout_trainer.gate.verdict import RefusedError

MOVE = "move the alias to a version that passed the gate and takes the same data, or drop the baseline from the bar"


@dataclass(frozen=True)
class Baseline:
    """What an alias stands for during one verification: a program, a reason why bars are not asked, or one why none can be met."""

    uri: str = ""
    """As `models:/team.digits/3`."""
    path: Path | None = None
    """The version's eval program, whose bytes are those that its statement names."""
    skipped: str = ""
    refused: str = ""

    @classmethod
    def unknown(cls, alias: str) -> "Baseline":
        return cls(refused=f"there is no registry here in which to look for {alias}")

    def predictor(self, outputs: int) -> "Other":
        """The version's program. Raises RefusedError when it cannot be compared with."""
        if self.refused or self.path is None:
            raise RefusedError(self.refused, MOVE)
        try:
            return Other(programs.load(self.path), self.uri, outputs)
        except RefusedError as error:
            raise RefusedError(f"{self.uri}: {error.evidence}", MOVE) from None


@dataclass(frozen=True)
class Other(Predictor):
    """A version's program, given the rows of another candidate."""

    def answer(self, call: Call) -> Tensor:
        """Raises RefusedError when it does not take them, or answers with another shape."""
        try:
            return super().answer(call)
        except MemoryError:
            raise
        except Exception as error:
            lines = (error.evidence if isinstance(error, RefusedError) else str(error)).strip().splitlines() or [type(error).__name__]
            raise RefusedError(f"{self.title} does not answer the held-out rows: {lines[0][:240]}", MOVE) from error
