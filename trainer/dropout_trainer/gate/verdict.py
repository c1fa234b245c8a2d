"""Short ways to say what a check found, and the report that they add up to. The words themselves are in dropout_api.verdict."""

from collections.abc import Iterable

from dropout_api.model import Wire
from dropout_api.verdict import CheckResult, Location, Outcome, Verdict, verdict_of

GATE_VERSION = "3"
"""Recorded with every verdict; raised whenever a check is added or decides differently."""
MAX_EVIDENCE = 1500


def passed(name: str, evidence: str) -> CheckResult:
    return CheckResult(name=name, outcome=Outcome.PASSED, evidence=evidence[:MAX_EVIDENCE])


def failed(name: str, evidence: str, remedy: str, where: Location | None = None, excerpt: str | None = None) -> CheckResult:
    return CheckResult(
        name=name, outcome=Outcome.FAILED, evidence=evidence[:MAX_EVIDENCE], remedy=remedy, where=where, excerpt=excerpt and excerpt[:4000])


def not_applicable(name: str, evidence: str) -> CheckResult:
    return CheckResult(name=name, outcome=Outcome.NOT_APPLICABLE, evidence=evidence[:MAX_EVIDENCE])


def could_not_run(name: str, evidence: str, remedy: str | None = None) -> CheckResult:
    return CheckResult(name=name, outcome=Outcome.COULD_NOT_RUN, evidence=evidence[:MAX_EVIDENCE], remedy=remedy)


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
    def verdict(self) -> Verdict:
        return verdict_of(self.checks)

    @property
    def passed(self) -> bool:
        """Whether there are checks and each of them passed or had nothing to look at."""
        return self.verdict is Verdict.PASSED

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
