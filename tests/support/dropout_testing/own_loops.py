"""A program of the user's that a job starts, and what is left of it: for tests without a cluster."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from torch import nn

from dropout_api.names import Env
from dropout_trainer.loop.job import Job

if TYPE_CHECKING:
    from mlflow import MlflowClient

RUN = "a" * 32
MakeJob = Callable[..., Job]
JOB = {"cluster": "c", "namespace": "team", "name": "own", "uid": "u"}


def task(argv: Sequence[str], run: str = RUN, attempt: int = 1, checkpoints: Path | None = None, **spec: Any) -> dict[str, Any]:
    """As the operator tells it to the pod; `checkpoints` makes the job one that keeps some."""
    keeps = {} if checkpoints is None else {"checkpoint": {"volumeClaim": "c"}}
    where = {} if checkpoints is None else {"checkpoints": str(checkpoints)}
    wanted = {"command": list(argv), "resourcesPerNode": {"limits": {"cpu": "1"}}, **keeps, **spec}
    return {"job": JOB, "attempt": attempt, "run": {"id": run, "experimentId": "1"}, "spec": wanted, **where}


def environment(told: dict[str, Any], report: Path, **more: str) -> dict[str, str]:
    return {**os.environ, Env.TASK: json.dumps(told), Env.TERMINATION_LOG: str(report), **more}


def stage(told: dict[str, Any], folder: Path, cwd: Path | None = None, **more: str) -> tuple[int, dict[str, Any], str]:
    """Runs `dropout train` as the pod does; its exit code, its report and what it has said."""
    report = folder / "report.json"
    report.unlink(missing_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", "dropout_trainer", "train"], env=environment(told, report, **more), cwd=cwd or folder,
        capture_output=True, text=True, check=False,
    )
    return done.returncode, json.loads(report.read_text()) if report.exists() else {}, done.stdout + done.stderr


def started(told: dict[str, Any], report: Path, cwd: Path) -> "subprocess.Popen[bytes]":
    """As `stage`, not waited for."""
    command = [sys.executable, "-m", "dropout_trainer", "train"]
    return subprocess.Popen(command, env=environment(told, report), cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@contextmanager
def store(folder: Path) -> "Iterator[MlflowClient]":
    """MLflow's own store, which this process and those that it starts write to within the block."""
    import mlflow  # slow, and of no use to who needs no store
    from mlflow import MlflowClient

    uri = f"sqlite:///{folder}/mlflow.db"
    found = MlflowClient(uri, uri)
    found.create_experiment("team.own", artifact_location=f"{folder}/artifacts/own")
    found.create_experiment("team:verified", artifact_location=f"{folder}/artifacts/verified")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("MLFLOW_TRACKING_URI", uri)
        mlflow.set_tracking_uri(uri)  # another test may have set another, which goes before the environment
        mlflow.set_registry_uri(uri)
        yield found


def new_run(client: "MlflowClient") -> str:
    experiment = client.get_experiment_by_name("team.own")
    assert experiment is not None
    return str(client.create_run(experiment.experiment_id).info.run_id)


@dataclass
class Record:
    """In the place of an MLflow run."""

    run_id: str = ""
    healthy: bool = True
    points: list[tuple[dict[str, float], int]] = field(default_factory=list)
    params_: dict[str, object] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    begun: bool = False

    def start(self) -> None:
        self.begun = True

    def tag(self, name: str, value: str) -> None: ...
    def text(self, name: str, content: str) -> None: ...
    def table(self, name: str, columns: object, rows: object) -> None: ...

    def take_up(self, unsent: object) -> None:
        assert not self.begun, "what an earlier attempt left goes first"

    def params(self, values: dict[str, object]) -> None:
        self.params_ |= values

    def metrics(self, values: dict[str, float], step: int) -> None:
        self.points.append((dict(values), step))

    def unsent(self) -> Callable[[], list[Any]]:
        return list

    def drain(self, seconds: float) -> int:
        return 0

    def upload(self, files: list[Path], seconds: float) -> None:
        self.files += [path.name for path in files]


def record_of(job: Job) -> Record:
    assert job.recorder is not None
    found = job.recorder.tracking
    assert isinstance(found, Record)
    return found


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 3))
