"""Beginning an attempt, and holding the job back."""

from dropout_api.names import Condition
from dropout_api.status import JobStatus, Phase, RunStatus
from dropout_operator import diagnosis, manifests, statuses
from dropout_operator.actions import Action, CreateJob, CreateSecret, CreateService, DeleteJob, MarkRun
from dropout_operator.planning.common import LOOK_AGAIN_SECONDS, Plan, event, write
from dropout_operator.planning.weights import weights_of
from dropout_operator.statuses import update, with_attempt, with_condition
from dropout_operator.world import World

SUSPENDED = "Suspended"
"""Why an attempt ended that its user has suspended."""


def begin(world: World) -> Plan:
    """A new attempt; nothing of the one before is left."""
    job, run = world.job, world.run
    assert run is not None
    number = len(job.status.attempts) + 1
    began = job.status.start_time or world.now
    status = statuses.begin_attempt(with_run(world, run), number, manifests.train_job_name(job.ref, number))
    status = update(status, phase=Phase.STARTING, message=of_attempt(status, diagnosis.STARTING), start_time=began)
    told = event(world, "RunCreated", f"MLflow run {run.id}")
    if number > 1:
        told = event(world, "Restarted", f"{of_attempt(status, 'training')} {_beginning(world, 'goes on', 'starts over')}")
    return Plan((*write(world, status, told), *start(world, status)), LOOK_AGAIN_SECONDS)


def of_attempt(status: JobStatus, message: str) -> str:
    """`message`, with the latest attempt's number and the reason for it where it is not the first."""
    if len(status.attempts) < 2:
        return message
    before, last = status.attempts[-2:]
    return f"attempt {last.number}, after {before.reason}: {message}"


def _beginning(world: World, resumed: str, anew: str) -> str:
    """Where an attempt that is not the first begins."""
    assert world.job.spec is not None
    return f"{resumed} from its last checkpoint" if world.job.spec.checkpoint else f"{anew} from the first epoch"


def with_run(world: World, run: RunStatus) -> JobStatus:
    """The job's status once it has its MLflow run, with what is known of that MLflow."""
    status = update(world.job.status, run=run)
    status = with_condition(world, status, Condition.TRACKING_HEALTHY, True, "RunExists", f"MLflow run {run.id}")
    if world.settings.mlflow_auth:
        return with_condition(world, status, Condition.REGISTRY_PROTECTED, True, "BasicAuth", "trainers may write their own runs only")
    message = "MLflow asks for no password, so anyone can register a model around the gate"
    return with_condition(world, status, Condition.REGISTRY_PROTECTED, False, "NoAuth", message)


def start(world: World, status: JobStatus) -> tuple[Action, ...]:
    """Creates what the attempt needs; each has a fixed name, so that doing it twice is doing it once."""
    job, settings = world.job, world.settings
    assert job.spec is not None
    assert world.run is not None
    number, seconds = status.attempts[-1].number, remaining_seconds(world)
    body = manifests.train_job(job.ref, job.spec, world.run, number, seconds, settings, weights_of(world))
    secret = (CreateSecret(manifests.tracking_secret(job.ref, settings)),) if settings.mlflow_auth else ()
    service = (CreateService(manifests.service(job.ref)),) if job.spec.nodes > 1 else ()
    return (*secret, *service, CreateJob(body))


def remaining_seconds(world: World) -> int | None:
    """Seconds left of the active deadline, which all attempts share; None where there is none."""
    assert world.job.spec is not None
    total = world.job.spec.active_deadline_seconds
    if total is None:
        return None
    past = (item for item in world.job.status.attempts if item.start_time and item.end_time)
    spent = sum((item.end_time - item.start_time).total_seconds() for item in past if item.start_time and item.end_time)
    return max(1, round(total - spent))


def suspend(world: World) -> Plan:
    """No pod runs; what the attempt had reached since its last checkpoint is given up."""
    status, then = world.job.status, _beginning(world, "go on", "start over")
    new = update(status, phase=Phase.SUSPENDED, message=f"suspended; set spec.suspend to false to {then}")
    if status.attempts and status.attempts[-1].end_time is None:
        new = with_attempt(new, reason=SUSPENDED, end_time=world.now)
    written = write(world, new, event(world, "Suspended", "no training pod runs"))
    stop = give_up(world)
    mark = (MarkRun(status.run.id, "SCHEDULED"),) if written and status.run else ()
    return Plan((*written, *stop, *mark), LOOK_AGAIN_SECONDS if stop else None)


def give_up(world: World) -> tuple[Action, ...]:
    """Deletes the Jobs of attempts that are over, whether they still run or not."""
    return tuple(DeleteJob(child.namespace, child.name, child.uid) for child in world.training() if not child.deleting)
