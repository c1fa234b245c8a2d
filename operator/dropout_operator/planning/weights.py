"""`spec.model.weights`: whose weights a training starts from is looked up before each making of its Job, and never remembered."""

from dropout_api.spec import Weights
from dropout_api.status import Failure
from dropout_api.task import JobRef, RunRef
from dropout_operator.actions import FindWeights
from dropout_operator.planning.candidates import refusal, unknown_run
from dropout_operator.planning.common import Plan, fail, wait_for_tracking
from dropout_operator.world import World

FIELD = "spec.model.weights"


def look_up(world: World) -> Plan | None:
    """What comes before a training Job; None when nothing is left of it."""
    wanted = _of_a_run(world)
    if wanted is None:
        return None
    if world.tracking_problem is not None:
        return wait_for_tracking(world)
    if world.weights is None:
        return Plan((FindWeights(wanted),))
    field = f"{FIELD}.run" if wanted.run else f"{FIELD}.model"
    refused = refusal(world.job.ref, world.weights, field, _unknown(world.job.ref, wanted))
    return fail(world, refused) if refused else None


def weights_of(world: World) -> RunRef | None:
    """The run that the trainer reads weights from, once it was looked up; None where the spec names a file or nothing."""
    if _of_a_run(world) is None:
        return None
    assert world.weights is not None
    return RunRef(id=world.weights.id, experiment_id=world.weights.experiment_id)


def _of_a_run(world: World) -> Weights | None:
    spec = world.job.spec
    wanted = spec.model.weights if spec and spec.model else None
    return None if wanted is None or wanted.uri is not None else wanted


def _unknown(job: JobRef, wanted: Weights) -> Failure:
    if wanted.run is not None:
        return unknown_run(job, wanted.run)
    version = f"alias {wanted.alias}" if wanted.alias else f"version {wanted.version}"
    message = (f"no job of namespace {job.namespace} has made a model '{wanted.model}' with {version}; "
               "name it as the export.model of the job that made it, without the namespace")
    return Failure(reason="VersionNotFound", message=message)
