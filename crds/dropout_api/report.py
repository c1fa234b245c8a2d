"""What a pod says when it ends: JSON in its termination message.

A training pod runs its user's code, so its report is a hint: size-capped and schema-checked here, shown to people,
never a source of names, addresses or trust. The kubelet keeps 4096 bytes of a termination message.
"""

import math
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, Field, ValidationError

from dropout_api.model import Observed

MAX_REPORT_BYTES = 4096
MAX_MESSAGE = 1500
MAX_METRICS = 32

R = TypeVar("R", bound=Observed)


def _finite(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
ShortText = Annotated[str, Field(max_length=MAX_MESSAGE)]
Metrics = Annotated[
    dict[Annotated[str, Field(max_length=64, pattern=r"^[a-z][a-z0-9_]*$")], float], Field(max_length=MAX_METRICS),
    AfterValidator(_finite),
]


class TrainReport(Observed):
    """How training ended, in the training pod's own words."""

    stage: Literal["train"] = "train"
    reason: Annotated[str, Field(max_length=64, pattern=r"^[A-Z][A-Za-z0-9]*$")]
    """CamelCase, `Trained` when all went well."""
    message: ShortText = ""
    epoch: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    epochs: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    metrics: Metrics = {}


class VerifyReport(Observed):
    """The verdict, in the verifier's words. Every field that names something was made by the verifier or the operator."""

    stage: Literal["verify"] = "verify"
    verdict: Literal["Passed", "Failed"]
    failed: Annotated[list[str], Field(max_length=32)] = []
    """Names of the checks that failed."""
    message: ShortText = ""
    """For people: which check failed, at which layer and op, and the remedy."""
    sha256: Sha256 | None = None
    model_name: str | None = None
    model_version: str | None = None
    model_uri: str | None = None
    report_uri: str | None = None
    metrics: Metrics = {}
    """Quality metrics that the verifier computed itself, as test_accuracy."""


class ProgressSample(Observed):
    """What rank 0 serves at `PROGRESS_PATH`."""

    attempt: Annotated[int, Field(ge=1, le=1_000_000)]
    epoch: Annotated[int, Field(ge=0, le=1_000_000)]
    epochs: Annotated[int, Field(ge=1, le=1_000_000)]
    eta_seconds: Annotated[int, Field(ge=0, le=1_000_000_000)] | None = None
    metrics: Metrics = {}
    tracking_healthy: bool = True
    """Whether the last write to MLflow went through."""


class StageError(Observed):
    """How a stage ended when it could not do its work: also the termination message of a verifier that crashed."""

    stage: Literal["train", "verify"]
    reason: Annotated[str, Field(max_length=64, pattern=r"^[A-Z][A-Za-z0-9]*$")]
    message: ShortText = ""


def parse(kind: type[R], text: str | bytes | None) -> R | None:
    """The report in `text`, or None when there is none, it is too large, or it is not what it should be."""
    if not text or len(text) > 16 * MAX_REPORT_BYTES:
        return None
    try:
        return kind.model_validate_json(text)
    except ValidationError:
        return None
