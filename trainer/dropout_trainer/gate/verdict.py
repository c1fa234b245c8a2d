"""The language of the gate: what a check says, where it points and what to do about it.

"Could not run" is a word of its own because it is never a pass: a check that raised has shown nothing.
"""

from collections.abc import Iterable
from enum import StrEnum

from dropout_api.model import Wire

GATE_VERSION = "1"
"""Recorded with every verdict; raised whenever a check is added or decides differently."""


class Outcome(StrEnum):
    PASSED = "Passed"
    FAILED = "Failed"
    NOT_APPLICABLE = "NotApplicable"
    COULD_NOT_RUN = "CouldNotRun"


class Basis(StrEnum):
    """Who vouches for a result: measured by the verifier itself, or attested by the training pod, which runs user code."""

    MEASURED = "Measured"
    ATTESTED = "Attested"


class Location(Wire):
    """A place in the model."""

    layer: str
    """Dotted name of the module, or the class of the model itself when the op stands in its own forward."""
    op: str
    """As `aten.dropout`."""
    source: str = ""
    """Line of the user's code, when the export recorded it."""


class CheckResult(Wire):
    """What one check found."""

    name: str
    outcome: Outcome
    basis: Basis = Basis.MEASURED
    evidence: str = ""
    """What was seen, with the numbers that decided."""
    where: Location | None = None
    remedy: str | None = None

    @property
    def sentence(self) -> str:
        """One line for people: check, evidence (which names layer and op), remedy."""
        return f"{self.name}: {self.evidence}" + (f". Remedy: {self.remedy}" if self.remedy else "")


def passed(name: str, evidence: str) -> CheckResult:
    return CheckResult(name=name, outcome=Outcome.PASSED, evidence=evidence)


def failed(name: str, evidence: str, remedy: str, where: Location | None = None) -> CheckResult:
    return CheckResult(name=name, outcome=Outcome.FAILED, evidence=evidence, remedy=remedy, where=where)


def not_applicable(name: str, evidence: str) -> CheckResult:
    return CheckResult(name=name, outcome=Outcome.NOT_APPLICABLE, evidence=evidence)


def could_not_run(name: str, evidence: str) -> CheckResult:
    return CheckResult(name=name, outcome=Outcome.COULD_NOT_RUN, evidence=evidence)


class RefusedError(Exception):
    """A candidate is not what it must be; raised where going on would be unsafe. Carries the words of the check that failed."""

    def __init__(self, evidence: str, remedy: str) -> None:
        super().__init__(evidence)
        self.evidence = evidence
        self.remedy = remedy


class GateReport(Wire):
    """All results, in the order in which the checks ran."""

    gate_version: str = GATE_VERSION
    checks: list[CheckResult]
    metrics: dict[str, float] = {}
    """Quality metrics that the gate computed from the reloaded program."""

    @property
    def passed(self) -> bool:
        """Whether there are checks and each of them passed or had nothing to look at."""
        return bool(self.checks) and not self.failed and any(check.outcome is Outcome.PASSED for check in self.checks)

    @property
    def failed(self) -> list[CheckResult]:
        """The checks that failed or could not run; those that failed first, because the others may be their consequence."""
        return [*_with(Outcome.FAILED, self.checks), *_with(Outcome.COULD_NOT_RUN, self.checks)]

    @property
    def message(self) -> str:
        """Why the candidate was rejected, most telling check first; empty when it passed."""
        return "; ".join(check.sentence for check in self.failed)


def _with(outcome: Outcome, checks: Iterable[CheckResult]) -> list[CheckResult]:
    return [check for check in checks if check.outcome is outcome]
