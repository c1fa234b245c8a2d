"""Everything that the operator can do to the outside, as data. `apply` performs them; tests enumerate them."""

from dataclasses import dataclass
from typing import Literal

from dropout_api.spec import Weights
from dropout_api.status import JobStatus
from dropout_operator.objects import Object

RunState = Literal["SCHEDULED", "RUNNING", "FINISHED", "FAILED", "KILLED"]


@dataclass(frozen=True)
class EnsureRun:
    """Find or make the job's experiment, MLflow run and, where MLflow has users, the trainer's user."""

    experiment: str
    source: str | None = None
    """Id of the run of `spec.from`, by which the job's own is tagged."""


@dataclass(frozen=True)
class FindSource:
    """Look up the run of `spec.from`: whose it is, and what its model was trained by."""

    run_id: str


@dataclass(frozen=True)
class FindWeights:
    """Look up the run that has the weights of `spec.model.weights`: that of a registered version, or the one that is named."""

    weights: Weights


@dataclass(frozen=True)
class WriteStatus:
    """Apply the whole status."""

    status: JobStatus


@dataclass(frozen=True)
class CreateSecret:
    """The training pod's MLflow password."""

    body: Object


@dataclass(frozen=True)
class CreateService:
    """Gives the pods of one training names by which they find each other."""

    body: Object


@dataclass(frozen=True)
class CreateJob:
    """A train or a verify Job, by its deterministic name."""

    body: Object


@dataclass(frozen=True)
class DeleteJob:
    """Ends a Job and its pods; it stays until they are gone."""

    namespace: str
    name: str
    uid: str


@dataclass(frozen=True)
class MarkRun:
    """Say in MLflow that the run waits or runs. Best effort: the final state does not depend on it."""

    run_id: str
    state: Literal["SCHEDULED", "RUNNING"]


@dataclass(frozen=True)
class EndRun:
    """Give the MLflow run its final state, from what the pods did."""

    run_id: str
    state: Literal["FINISHED", "FAILED", "KILLED"]
    phase: str
    message: str


@dataclass(frozen=True)
class EmitEvent:
    """An Event on the job; the same one twice is one."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str
    attempt: int


@dataclass(frozen=True)
class DeleteTrainingJob:
    """Time to live is over."""


Action = (
    EnsureRun | FindSource | FindWeights | WriteStatus | CreateSecret | CreateService | CreateJob | DeleteJob | MarkRun | EndRun | EmitEvent
    | DeleteTrainingJob
)
