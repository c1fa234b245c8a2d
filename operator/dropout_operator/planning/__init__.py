"""Decides what to do about one job: `plan(world)` is pure, total, and has nothing left to say once its actions are done.

A fact that cannot be taken back (the run's id, an attempt's number) is written to status before the action that relies
on it, so the operator may be cut off between any two actions and start over.
"""

from dropout_api.names import Condition
from dropout_api.status import Failure
from dropout_api.task import experiment_name
from dropout_operator import statuses
from dropout_operator.actions import DeleteTrainingJob, EnsureRun
from dropout_operator.planning.attempts import begin, suspend
from dropout_operator.planning.common import RETRY_SECONDS, Plan, close, event, fail, stop, wait_for_tracking, write
from dropout_operator.planning.restarting import hold
from dropout_operator.planning.reusing import reuse
from dropout_operator.planning.training import train
from dropout_operator.planning.verifying import verify
from dropout_operator.planning.weights import look_up
from dropout_operator.statuses import update
from dropout_operator.world import Blocked, World

__all__ = ["Plan", "plan"]


def plan(world: World) -> Plan:
    """What to do now."""
    job, status = world.job, world.job.status
    if job.deleting:
        return Plan()
    if status.phase.terminal:
        return _finished(world)
    if job.problem is not None or job.spec is None:
        return fail(world, Failure(reason="InvalidSpec", message=job.problem or "spec cannot be read"))
    if world.blocked is not None:
        return _blocked(world, world.blocked)
    if job.spec.source is not None:
        return reuse(world, job.spec.source.run)
    if statuses.holds(status, Condition.TRAINED):
        return verify(world)
    if job.spec.suspend:
        return suspend(world)
    begins = not status.attempts or status.attempts[-1].end_time is not None
    if begins and (first := hold(world) or look_up(world)):
        return first
    if world.run is None:
        return wait_for_tracking(world) if world.tracking_problem else Plan((EnsureRun(experiment_name(job.ref, job.spec)),))
    return begin(world) if begins else train(world)


def _blocked(world: World, blocked: Blocked) -> Plan:
    """The API server would not create a child: for good when the child itself is wrong, for now when a quota is full."""
    if blocked.final:
        return fail(world, Failure(reason="InvalidSpec", message=f"the API server refused the pod: {blocked.message}"))
    status = update(world.job.status, message=f"waiting: {blocked.message}")
    return Plan(write(world, status, event(world, blocked.reason, blocked.message, warning=True)), RETRY_SECONDS)


def _finished(world: World) -> Plan:
    """After the end: stop what still runs, close the run, delete the job when its time is over."""
    status = world.job.status
    actions = (*stop(world), *close(world, status))
    if actions:
        return Plan(actions, RETRY_SECONDS)
    ttl = getattr(world.job.spec.ttl_seconds_after_finished, status.phase.lower(), None) if world.job.spec else None
    if ttl is None or status.completion_time is None:
        return Plan()
    seconds = ttl - (world.now - status.completion_time).total_seconds()
    return Plan((), seconds) if seconds > 0 else Plan((DeleteTrainingJob(),))
