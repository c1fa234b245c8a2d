"""What MLflow holds of a training. Reads alone."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from dropout_api.builtins import describe
from dropout_api.candidate import CANDIDATE_PATH, MANIFEST, Manifest
from dropout_api.model import Wire
from dropout_api.names import ExitCode, Metric
from dropout_api.spec import TrainingJobSpec
from dropout_trainer.errors import StageFailure
from dropout_trainer.reproduce.compare import Facts
from dropout_trainer.verify.patience import error_code, persist
from dropout_trainer.verify.target import PATIENCE_SECONDS

SPEC_PATH = "spec.json"
COMMAND = "command"
"""Parameter of a run that spec.command has trained."""
UNKNOWN = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND", "PERMISSION_DENIED")
FINISHED = ("FINISHED", "FAILED", "KILLED")
NO_CURVE = (Metric.EPOCH_SECONDS.value, "test_", "cv_", "system/")
"""Metrics that are no part of an epoch's result, by how their names begin."""
W = TypeVar("W", bound=Wire)


@dataclass(frozen=True)
class Recorded:
    """A training of before."""

    spec: TrainingJobSpec
    facts: Facts


def read(client: Any, run_id: str) -> Recorded:
    """The training that a run records.

    Raises StageFailure: DATA_MISSING where there is no such run, UNDECIDED for one that has not ended or says too little,
    TRACKING_UNAVAILABLE.
    """
    run = _asked(run_id, lambda: client.get_run(run_id))
    if run.info.status not in FINISHED:
        raise StageFailure("RunNotEnded", f"run {run_id} is {run.info.status}; wait until it has ended", ExitCode.UNDECIDED)
    if COMMAND in run.data.params:
        message = f"run {run_id} was trained by a program of its own, {run.data.params[COMMAND][:200]}: only that can train it again"
        raise StageFailure("SpecNotRecorded", message, ExitCode.UNDECIDED)
    spec = _artifact(client, run_id, SPEC_PATH, TrainingJobSpec)
    if spec is None:
        message = f"run {run_id} has no {SPEC_PATH}: it trained nothing, or under a version that did not record how"
        raise StageFailure("SpecNotRecorded", message, ExitCode.UNDECIDED)
    manifest = _artifact(client, run_id, f"{CANDIDATE_PATH}/{MANIFEST}", Manifest)
    files = {name: file.sha256 for name, file in manifest.files.items()} if manifest else {}
    names = [name for name in run.data.metrics if not name.startswith(NO_CURVE)]
    histories = {name: _asked(run_id, lambda name=name: client.get_metric_history(run_id, name)) for name in names}
    return Recorded(spec, Facts(dict(run.data.params), curve(histories), files))


def curve(histories: Mapping[str, list[Any]]) -> list[dict[str, float]]:
    """Metrics of each epoch from MLflow's histories: points with `step`, the epoch from 1, `timestamp` and `value`.

    A job that was suspended has trained from the start again into the same run; its last training counts.
    """
    epochs: dict[int, dict[str, float]] = {}
    for name, points in histories.items():
        begin = max((point.timestamp for point in points if point.step == 1), default=0)
        for point in sorted(points, key=lambda point: point.timestamp):
            if point.timestamp >= begin and point.step >= 1:
                epochs.setdefault(point.step, {})[name] = point.value
    return [epochs.get(epoch, {}) for epoch in range(1, max(epochs, default=0) + 1)]


def _artifact(client: Any, run_id: str, path: str, kind: type[W]) -> W | None:
    """A JSON file of the run, None where there is none."""
    folder = path.rpartition("/")[0] or None
    if path not in {info.path for info in _asked(run_id, lambda: client.list_artifacts(run_id, folder))}:
        return None
    with tempfile.TemporaryDirectory(prefix="reproduce-") as here:
        text = Path(_asked(run_id, lambda: client.download_artifacts(run_id, path, here))).read_text(encoding="utf-8")
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        message = f"{path} of run {run_id} cannot be read by this version: {describe(error, 'spec')}"
        raise StageFailure("SpecNotRecorded", message[:1500], ExitCode.UNDECIDED) from None


def _asked(run_id: str, step: Any) -> Any:
    try:
        return persist(step, PATIENCE_SECONDS)
    except StageFailure:
        raise
    except Exception as error:
        text = next(iter(str(error).splitlines()), "")[:300]
        if error_code(error) in UNKNOWN:
            raise StageFailure("RunNotFound", f"there is no run {run_id} in this MLflow: {text}", ExitCode.DATA_MISSING) from None
        if error_code(error) or hasattr(error, "response"):
            raise StageFailure("TrackingRefused", f"MLflow refused run {run_id}: {text}", ExitCode.TRACKING_UNAVAILABLE) from None
        raise
