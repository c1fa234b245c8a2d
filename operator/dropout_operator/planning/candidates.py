"""Whether a job may use the candidate of a run that it names, to verify it again or to start from its weights."""

from dropout_api.names import is_tenants
from dropout_api.status import Failure
from dropout_api.task import JobRef
from dropout_operator.world import SourceRun


def refusal(job: JobRef, source: SourceRun, field: str, unknown: Failure) -> Failure | None:
    """Why not; None where it may. Another namespace's run is refused in the words for one that does not exist, `unknown`."""
    if not (is_tenants(job.namespace, source.experiment) and source.namespace == job.namespace):
        return Failure(reason=unknown.reason, message=f"{field}: {unknown.message}")
    if source.verified:
        problem = f"run {source.id} has no candidate, it verified that of run {source.verified[:32]}; name that"
        return Failure(reason="RunTrainedNothing", message=f"{field}: {problem}")
    if source.active:
        problem = f"run {source.id} has not ended; wait until its job has, and create this one again"
        return Failure(reason="RunNotEnded", message=f"{field}: {problem}")
    return None


def unknown_run(job: JobRef, run_id: str) -> Failure:
    message = f"no job of namespace {job.namespace} has made a run {run_id}; take status.run.id of the job that trained the model"
    return Failure(reason="RunNotFound", message=message)
