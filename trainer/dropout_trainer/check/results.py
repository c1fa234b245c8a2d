"""What came of one call: for each target a verdict or an error, an exit code, and the JSON that machines read."""

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from dropout_api._version import __version__
from dropout_api.model import Wire
from dropout_api.names import ExitCode
from dropout_api.verdict import CheckResult, Verdict
from dropout_trainer.errors import StageFailure
from dropout_trainer.gate.verdict import GATE_VERSION, GateReport

CODES = {Verdict.PASSED: ExitCode.OK, Verdict.FAILED: ExitCode.REJECTED, Verdict.COULD_NOT_RUN: ExitCode.UNDECIDED}
LIBRARIES = ("torch", "numpy", "onnx", "onnxruntime", "mlflow")


class Result(Wire):
    """Of one target."""

    target: str
    verdict: Verdict
    """CouldNotRun where an error kept the target from being judged."""
    exit_code: ExitCode
    error: str | None = None
    """Why it could not be judged at all: a wrong target, a missing file, the model's own code."""
    message: str = ""
    """What failed, most telling check first."""
    seconds: float
    checks: list[CheckResult] = []
    metrics: dict[str, float] = {}

    @classmethod
    def of_report(cls, target: str, report: GateReport, seconds: float) -> "Result":
        verdict = report.verdict
        return cls(target=target, verdict=verdict, exit_code=CODES[verdict], message=report.message, seconds=round(seconds, 3),
                   checks=report.checks, metrics=report.metrics)

    @classmethod
    def of_failure(cls, target: str, failure: StageFailure, seconds: float) -> "Result":
        return cls(target=target, verdict=Verdict.COULD_NOT_RUN, exit_code=failure.exit_code, error=failure.message,
                   message=failure.message, seconds=round(seconds, 3))


class Document(Wire):
    """All results of one call."""

    schema_version: Literal[1] = 1
    gate_version: str = GATE_VERSION
    versions: dict[str, str]
    """Of this package, python and the libraries that took part."""
    exit_code: ExitCode
    results: list[Result]

    @classmethod
    def of(cls, results: list[Result]) -> "Document":
        return cls(versions=versions(), exit_code=worst([result.exit_code for result in results]), results=results)


def worst(codes: list[ExitCode]) -> ExitCode:
    """An error before a failure, a failure before what is undecided: a pipeline may let the latter pass."""
    return max(codes, key=lambda code: (code is not ExitCode.OK, code is not ExitCode.UNDECIDED, code))


def versions() -> dict[str, str]:
    return {"dropout-operator": __version__, "python": platform.python_version()} | {
        name: found for name in LIBRARIES if (found := _version(name))}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
