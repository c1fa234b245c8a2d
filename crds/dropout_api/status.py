"""What the operator says of a job: its status. Written by the operator alone, with server-side apply."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from dropout_api.model import Observed


class Phase(StrEnum):
    PENDING = "Pending"
    QUEUED = "Queued"
    STARTING = "Starting"
    RUNNING = "Running"
    SUSPENDED = "Suspended"
    VERIFYING = "Verifying"
    SUCCEEDED = "Succeeded"
    REJECTED = "Rejected"
    FAILED = "Failed"

    @property
    def terminal(self) -> bool:
        return self in (Phase.SUCCEEDED, Phase.REJECTED, Phase.FAILED)


class ConditionStatus(Observed):
    """A condition as in the Kubernetes API conventions."""

    type: Annotated[str, Field(max_length=316)]
    status: Literal["True", "False", "Unknown"]
    reason: Annotated[str, Field(max_length=1024)]
    message: Annotated[str, Field(max_length=32_768)] = ""
    last_transition_time: datetime
    observed_generation: int | None = None


class Attempt(Observed):
    """One training Job."""

    number: int
    job: str
    """Name of the batch/v1 Job."""
    reason: str | None = None
    """Why it ended, when it did."""
    disruption: str | None = None
    """Kubernetes' own reason to end its pod, as EvictionByEvictionAPI; the restart after it does not count."""
    start_time: datetime | None = None
    """When its training process ran."""
    end_time: datetime | None = None


class RunStatus(Observed):
    """The MLflow run, made by the operator once for the job's whole life."""

    id: str
    experiment_id: str
    url: str | None = None
    """Page of the run in the MLflow UI."""


class Progress(Observed):
    """How far training is, as rank 0 tells; its last values stay after the pod is gone."""

    epoch: int
    epochs: int
    percent: int
    eta_seconds: int | None = None
    metrics: dict[str, float] = {}
    """Latest values by MLflow metric name, as train_loss, val_loss and val_gap."""
    update_time: datetime | None = None
    """When these values were read."""


class GateStatus(Observed):
    """The verifier's verdict."""

    verdict: Literal["Passed", "Failed"]
    failed: list[str] = []
    """Names of the checks that failed."""
    report: str | None = None
    """Where the whole report lies, as an MLflow artifact URI."""


class ModelStatus(Observed):
    """The registered version."""

    name: str
    version: str
    uri: str


class ArtifactStatus(Observed):
    sha256: str
    """Of the exported eval program."""


class Failure(Observed):
    """Why the job failed, and where to look."""

    reason: str
    message: str
    pod: str | None = None
    container: str | None = None
    exit_code: int | None = None


class JobStatus(Observed):
    """The observed state of the job."""

    observed_generation: int | None = None
    phase: Phase = Phase.PENDING
    message: str | None = None
    """One line on what the job is doing or waiting for."""
    conditions: Annotated[list[ConditionStatus], Field(json_schema_extra={
        "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]})] = []
    attempts: Annotated[list[Attempt], Field(json_schema_extra={
        "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["number"]})] = []
    restarts: int = 0
    """Attempts after the first."""
    run: RunStatus | None = None
    progress: Progress | None = None
    devices: dict[str, str] = {}
    """Extended resources of the training pod, as nvidia.com/gpu: 1."""
    image_id: Annotated[str | None, Field(alias="imageID")] = None
    """Image that the training container ran, by digest where the runtime tells."""
    artifact: ArtifactStatus | None = None
    gate: GateStatus | None = None
    model: ModelStatus | None = None
    failure: Failure | None = None
    start_time: datetime | None = None
    completion_time: datetime | None = None
