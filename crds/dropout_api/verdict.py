"""The language of the gate: what a check says, on whose word, where it points and what to do about it.

"Could not run" is a word of its own because it is never a pass: a check that raised has shown nothing.
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from dropout_api.model import Wire


class Outcome(StrEnum):
    PASSED = "Passed"
    FAILED = "Failed"
    NOT_APPLICABLE = "NotApplicable"
    COULD_NOT_RUN = "CouldNotRun"


class Basis(StrEnum):
    """Who vouches for a result: measured by the verifier itself, or attested by the training pod, which runs user code."""

    MEASURED = "Measured"
    ATTESTED = "Attested"


class Verdict(StrEnum):
    """What all checks together say."""

    PASSED = "Passed"
    FAILED = "Failed"
    COULD_NOT_RUN = "CouldNotRun"
    """Nothing failed, but something that had to be shown was not."""


class Location(Wire):
    """A place in the model."""

    layer: Annotated[str, Field(max_length=400)]
    """Dotted name of the module, or the class of the model itself when the op stands in its own forward."""
    op: Annotated[str, Field(max_length=400)]
    """As `aten.dropout`."""
    source: Annotated[str, Field(max_length=400)] = ""
    """Line of the user's code, when it is known."""

    def __str__(self) -> str:
        return f"{self.op} in layer '{self.layer}'" + (f" ({self.source})" if self.source else "")


class CheckResult(Wire):
    """What one check found."""

    name: Annotated[str, Field(max_length=64)]
    outcome: Outcome
    basis: Basis = Basis.MEASURED
    evidence: Annotated[str, Field(max_length=2000)] = ""
    """What was seen, with the numbers that decided."""
    where: Location | None = None
    remedy: Annotated[str, Field(max_length=1000)] | None = None
    excerpt: Annotated[str, Field(max_length=4000)] | None = None
    """Lines of the program's graph around the place, the op itself marked with `>`."""

    @property
    def sentence(self) -> str:
        """One line for people: check, evidence (which names layer and op), remedy."""
        return f"{self.name}: {self.evidence}" + (f". Remedy: {self.remedy}" if self.remedy else "")


def verdict_of(checks: Iterable[CheckResult]) -> Verdict:
    """Passed when there is at least one pass and everything else had nothing to look at."""
    outcomes = {check.outcome for check in checks}
    if Outcome.FAILED in outcomes:
        return Verdict.FAILED
    return Verdict.PASSED if outcomes <= {Outcome.PASSED, Outcome.NOT_APPLICABLE} and Outcome.PASSED in outcomes else Verdict.COULD_NOT_RUN
