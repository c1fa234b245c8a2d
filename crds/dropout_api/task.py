"""What a pod is told to do: one typed object in one environment variable (`Env.TASK`)."""

from typing import Annotated

from pydantic import Field

from dropout_api.model import Wire
from dropout_api.names import tenant_name
from dropout_api.spec import CommandJobSpec, JobSpec, RunId, TrainingJobSpec


class JobRef(Wire):
    """Which job, in which cluster; the UID is what counts."""

    cluster: str
    namespace: str
    name: str
    uid: str


class RunRef(Wire):
    """An MLflow run that the operator made for a job."""

    id: RunId
    experiment_id: str


class Attempt(Wire):
    """What a training pod does, whoever trains in it."""

    job: JobRef
    attempt: Annotated[int, Field(ge=1)]
    run: RunRef
    spec: JobSpec
    checkpoints: str | None = None
    """URI of the folder for the job's checkpoints, the job's own; None when it keeps none."""
    image: str | None = None
    """Image of the training container, as the operator has set it."""


class TrainTask(Attempt):
    """The trainer itself trains."""

    spec: TrainingJobSpec
    weights: RunRef | None = None
    """The run whose candidate has the weights to start from, once the operator has found it to be of the job's namespace; None
    when `spec.model.weights` names a file or nothing."""


class CommandTask(Attempt):
    """A program of the user's trains, through `dropout_trainer.loop`."""

    spec: CommandJobSpec


class VerifyTask(Wire):
    """What a verifying pod does. Nothing in it comes from the training pod."""

    job: JobRef
    run: RunRef
    """The job's own run, which gets the report."""
    spec: JobSpec
    source: RunRef | None = None
    """The run of `spec.from`, once the operator has found it to be of the job's namespace; None when the job trained itself."""
    image_id: str | None = None
    """Image that trained the model, as the kubelet told; recorded with the version."""

    @property
    def trained(self) -> RunRef:
        """The run that trained the model: it holds the candidate and the curves."""
        return self.source or self.run

    @property
    def model_name(self) -> str:
        """Full name of the registered model in MLflow."""
        return tenant_name(self.job.namespace, self.spec.export.model or self.job.name)


def experiment_name(job: JobRef, spec: JobSpec) -> str:
    """Full name of the experiment in MLflow."""
    return tenant_name(job.namespace, spec.tracking.experiment or job.name)
