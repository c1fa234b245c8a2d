"""The whole gate: a candidate's folder goes in, a report comes out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dropout_api.candidate import PROGRAM, CandidateConfig
from dropout_api.spec import QualityBar
from dropout_trainer.gate import attested, candidate, forwards, quality, scan
from dropout_trainer.gate.program import Subject, load
from dropout_trainer.gate.verdict import CheckResult, GateReport, RefusedError, could_not_run, failed, passed

Check = Callable[[Subject], CheckResult]

CHECKS: tuple[Check, ...] = (
    scan.graph, scan.decomposed_graph, forwards.batch_sizes, forwards.repeat, forwards.untouched, forwards.parity,
    forwards.batch_invariance, attested.left_in_training,
)


@dataclass(frozen=True)
class Inspection:
    """A gate's report and what was learnt on the way; config and digest are None when the candidate was unreadable."""

    report: GateReport
    config: CandidateConfig | None = None
    sha256: str | None = None
    """Of the exported program."""


def inspect(folder: Path, bars: Sequence[QualityBar] = ()) -> Inspection:
    """Runs every check on the candidate in `folder`. Never raises for what the candidate holds: that is a verdict."""
    checks: list[CheckResult] = []
    name, config, digest = "digests", None, None
    try:
        digest = candidate.check_digests(folder)
        checks.append(passed(name, f"all files match their SHA-256; program {digest}"))
        name = "candidate"
        config = candidate.read_config(folder)
        heldout = candidate.read_heldout(folder, config)
        checks.append(passed(name, f"{len(heldout.target)} held-out rows, {config.classes} classes, model {config.model_factory}"))
        name = "archive"
        program = load(folder / PROGRAM)
        checks.append(passed(name, "the program's archive holds tensors and torch's own ops, and no code"))
    except RefusedError as error:
        return Inspection(GateReport(checks=[*checks, failed(name, error.evidence, error.remedy)]), config, digest)
    report = examine(Subject(program, config, heldout), bars)
    return Inspection(report.model_copy(update={"checks": [*checks, *report.checks]}), config, digest)


def examine(subject: Subject, bars: Sequence[QualityBar] = ()) -> GateReport:
    """Runs the checks that need a loaded program."""
    checks = [_attempt(check.__name__, check, subject) for check in CHECKS]
    metrics: dict[str, float] = {}

    def measured_quality(subject: Subject) -> CheckResult:
        metrics.update(quality.measure(subject))
        return quality.quality(metrics, bars)

    checks.append(_attempt("quality", measured_quality, subject))
    return GateReport(checks=checks, metrics=metrics)


def _attempt(name: str, check: Check, subject: Subject) -> CheckResult:
    """A check that raises has shown nothing. Running out of memory is the verifier's own trouble and is passed on."""
    try:
        return check(subject)
    except MemoryError:
        raise
    except Exception as error:
        if "DefaultCPUAllocator" in str(error):  # torch's way of saying it
            raise MemoryError from error
        lines = str(error).strip().splitlines() or [""]
        return could_not_run(name, f"the check could not run: {type(error).__name__} {lines[0][:200]}")
