"""Bounded patience with MLflow: short time-outs, retries of our own, and one kind of error when it stays away."""

import os
import time
from collections.abc import Callable
from typing import Any, TypeVar

from dropout_api.names import ExitCode
from dropout_trainer.errors import StageFailure

T = TypeVar("T")

PATIENCE_SECONDS = 120.0
"""How long one step waits for MLflow; after that the pod ends and its Job tries again."""
MAX_PAUSE_SECONDS = 10.0
SETTINGS = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "20", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
            "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true"}
"""MLflow's own retries are off: they repeat a POST blindly, where a step here looks first whether it was done."""

FINAL = frozenset(("RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS", "PERMISSION_DENIED", "UNAUTHENTICATED", "INVALID_PARAMETER_VALUE",
                   "BAD_REQUEST", "NOT_FOUND", "ENDPOINT_NOT_FOUND", "FEATURE_DISABLED", "INVALID_STATE"))


def configure() -> None:
    """Sets the time-outs of MLflow's client for this process, unless the platform has set its own."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)


def error_code(error: BaseException) -> str:
    """MLflow's word for what went wrong; empty when it is no word from MLflow."""
    return str(getattr(error, "error_code", ""))


def persist(step: Callable[[], T], patience: float = PATIENCE_SECONDS, sleep: Callable[[float], Any] = time.sleep) -> T:
    """The result of `step`, which is repeated while MLflow is away; so it must be safe to repeat.

    Raises what MLflow said when asking again would not help, and StageFailure TrackingUnavailable after `patience` seconds.
    """
    start, pause = time.monotonic(), 0.5
    while True:
        try:
            return step()
        except Exception as error:
            if not _transient(error):
                raise
            if time.monotonic() - start + pause > patience:
                lines = str(error).strip().splitlines() or [type(error).__name__]
                message = f"MLflow did not answer for {patience:.0f} s: {lines[0][:300]}"
                raise StageFailure("TrackingUnavailable", message, ExitCode.TRACKING_UNAVAILABLE) from error
            sleep(pause)
            pause = min(2 * pause, MAX_PAUSE_SECONDS)


def _transient(error: Exception) -> bool:
    from mlflow.exceptions import MlflowException

    if isinstance(error, MlflowException):
        return error_code(error) not in FINAL
    response = getattr(error, "response", None)
    if response is not None:
        return bool(response.status_code >= 500 or response.status_code in (408, 429))
    return isinstance(error, ConnectionError | TimeoutError) or type(error).__module__.startswith(("requests", "urllib3"))
