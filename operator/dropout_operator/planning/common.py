"""What every part of the planning shares: the plan itself, writing status, and the ways a job ends."""

from dataclasses import dataclass
from typing import Literal

from dropout_api.names import Condition
from dropout_api.status import Failure, JobStatus, Phase
from dropout_operator import statuses
from dropout_operator.actions import Action, DeleteJob, EmitEvent, EndRun, WriteStatus
from dropout_operator.statuses import update, with_attempt, with_condition
from dropout_operator.world import JobView, World

RETRY_SECONDS = 10.0
LOOK_AGAIN_SECONDS = 2.0


@dataclass(frozen=True)
class Plan:
    """Actions in order, and when to look again if nothing happens (seconds; None: no need)."""

    actions: tuple[Action, ...] = ()
    again: float | None = None


def write(world: World, status: JobStatus, *events: EmitEvent) -> tuple[Action, ...]:
    """The status and its events, nothing where nothing changed. Events go first: the same one twice is one."""
    status = update(status, observed_generation=world.job.generation)
    return () if statuses.same(world.job.status, status) else (*events, WriteStatus(status))


def event(world: World, reason: str, message: str, warning: bool = False) -> EmitEvent:
    attempts = world.job.status.attempts
    return EmitEvent("Warning" if warning else "Normal", reason, message, attempts[-1].number if attempts else 0)


def about_tracking(world: World, status: JobStatus) -> tuple[EmitEvent, ...]:
    """What to say of MLflow while a pod writes to it, when `status` has another word on it than the job's has."""
    before, now = (statuses.denied(state, Condition.TRACKING_HEALTHY) for state in (world.job.status, status))
    if before == now:
        return ()
    if now is None:
        return (event(world, "TrackingBack", "MLflow answers again and gets what the trainer has kept"),)
    return (event(world, "TrackingLost", now, warning=True),)


def wait_for_tracking(world: World) -> Plan:
    """Says that MLflow cannot be asked, and asks again."""
    problem, status = world.tracking_problem or "", world.job.status
    message = f"waiting for MLflow at {world.settings.mlflow_uri}: {problem}"
    phase = status.phase if status.phase is Phase.VERIFYING else Phase.PENDING
    status = with_condition(world, update(status, phase=phase, message=message), Condition.TRACKING_HEALTHY, False, "Unreachable", problem)
    return Plan(write(world, status, event(world, "TrackingUnavailable", message, warning=True)), RETRY_SECONDS)


def fail(world: World, failure: Failure, job: JobView | None = None) -> Plan:
    """The end of a job that could not be done; `job` is the training Job that ended or is to end."""
    status = update(world.job.status, phase=Phase.FAILED, failure=failure, message=failure.message, completion_time=world.now)
    if status.attempts and status.attempts[-1].end_time is None:
        pod = next(iter(world.pods_of(job)), None) if job else None
        began = (pod.started if pod else None) or status.attempts[-1].start_time
        status = with_attempt(status, reason=failure.reason, end_time=world.now, start_time=began)
    status = with_condition(world, status, Condition.FAILED, True, failure.reason, failure.message)
    return end(world, status, event(world, failure.reason, failure.message, warning=True))


def end(world: World, status: JobStatus, told: EmitEvent) -> Plan:
    """The verdict goes to status first, so that people see it even while MLflow is away; then the run is closed.

    Closing comes last: nobody looks for children of a job whose run is closed.
    """
    return Plan((*write(world, status, told), *stop(world), *close(world, status)), RETRY_SECONDS)


def stop(world: World) -> tuple[Action, ...]:
    """Ends what still trains, as a pod whose image cannot be pulled does for ever."""
    left = (child for child in world.training() if not (child.finished or child.deleting))
    return tuple(DeleteJob(child.namespace, child.name, child.uid) for child in left)


def close(world: World, status: JobStatus) -> tuple[Action, ...]:
    """Gives the MLflow run its final state, once."""
    if status.run is None or statuses.holds(status, Condition.RUN_CLOSED):
        return ()
    state: Literal["FINISHED", "FAILED"] = "FINISHED" if status.phase is Phase.SUCCEEDED else "FAILED"
    closed = update(status, observed_generation=world.job.generation)
    closed = with_condition(world, closed, Condition.RUN_CLOSED, True, state.capitalize(), f"MLflow run {status.run.id} is {state}")
    return (EndRun(status.run.id, state, status.phase, status.message or ""), WriteStatus(closed))
