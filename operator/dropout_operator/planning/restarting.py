"""Between two attempts: whether another one follows, and when nothing of the one before is left."""

import hashlib
from datetime import datetime, timedelta
from itertools import takewhile

from dropout_api.status import Attempt, Phase
from dropout_api.training import Restart
from dropout_operator import diagnosis
from dropout_operator.actions import Action
from dropout_operator.diagnosis import Ending
from dropout_operator.planning.attempts import SUSPENDED, give_up
from dropout_operator.planning.common import LOOK_AGAIN_SECONDS, Plan, event, fail, write
from dropout_operator.statuses import update, with_attempt
from dropout_operator.world import Disruption, JobView, World

FIRST_PAUSE = 10.0
MAX_PAUSE = 300.0
JITTER = 0.2
"""Part of a pause that differs between jobs, so that those of one drained node do not come back at once."""
CALM = timedelta(minutes=10)
"""An attempt that ran so long ends a row of failures, as with Kubernetes' own back-off."""
PATIENCE = timedelta(minutes=2)
"""The time that pods may take to end is not worth a word."""
NODE_LOST = "where its node is lost, delete the node, or the pod with --force once it surely runs no more"


def interrupted(world: World, job: JobView, cause: Disruption) -> Plan:
    """The pod is being ended from outside. That is kept in status, because the pod may be gone before its Job has failed."""
    status = with_attempt(world.job.status, disruption=cause.reason, start_time=_began(world, job))
    message = f"attempt {status.attempts[-1].number} is being ended: {cause.message}"
    if cause.since is not None and world.now - cause.since >= PATIENCE:
        message = f"{message}; it has not ended yet: {NODE_LOST}"
    status = update(status, message=message)
    return Plan(write(world, status, event(world, cause.reason, cause.message, warning=True)), LOOK_AGAIN_SECONDS)


def ended(world: World, job: JobView) -> Plan:
    """The latest attempt's Job has failed: another attempt where that may help, else the end of the job."""
    assert world.job.spec is not None
    attempts = world.job.status.attempts
    end = diagnosis.ending(job, world.pods_of(job), attempts[-1].disruption)
    limit = _limit(world.job.spec.restart, attempts[:-1], end)
    return _again(world, job, end) if end.passing and not limit else fail(world, end.failure(limit), job)


def _limit(restart: Restart, before: list[Attempt], end: Ending) -> str:
    """Why no restart is left; empty where one is. Suspensions are the user's own and count nowhere."""
    cut_off = [attempt for attempt in before if attempt.reason != SUSPENDED]
    counted = sum(attempt.disruption is None for attempt in cut_off)
    most = 10 * restart.max_restarts + 10
    if not end.passing:
        return ""
    if len(cut_off) + 1 >= most:
        return f"{most} attempts have been cut off, and spec.restart.maxRestarts allows no more"
    if end.disruption is None and counted >= restart.max_restarts:
        return f"none is left of the {restart.max_restarts} restarts of spec.restart.maxRestarts"
    return ""


def _again(world: World, job: JobView, end: Ending) -> Plan:
    """Ends the attempt, and its Job where that is there still: what follows has to wait for its pods to be gone."""
    status = world.job.status
    number = status.attempts[-1].number
    status = with_attempt(status, reason=end.reason, disruption=end.disruption, start_time=_began(world, job), end_time=world.now)
    status = update(status, phase=Phase.STARTING, message=f"attempt {number + 1} follows attempt {number}, which ended: {end.message}")
    written = write(world, status, event(world, end.reason, end.message, warning=True))
    return Plan((*written, *give_up(world)), LOOK_AGAIN_SECONDS)


def _began(world: World, job: JobView) -> datetime | None:
    pod = next(iter(world.pods_of(job)), None)
    return (pod.started if pod else None) or world.job.status.attempts[-1].start_time


def hold(world: World) -> Plan | None:
    """What comes before another attempt: the end of all Jobs and pods of the one before, and a pause. None when nothing is left of it."""
    attempts = world.job.status.attempts
    if world.training():  # whoever was to delete them may have been cut off before
        return Plan((*_patience(world), *give_up(world)), LOOK_AGAIN_SECONDS)
    if attempts and world.lingering():
        return Plan(_patience(world), LOOK_AGAIN_SECONDS)
    left = _pause_left(world)
    return Plan((), left) if left > 0 else None


def _patience(world: World) -> tuple[Action, ...]:
    """Says which pod is waited for, once that takes long."""
    attempts, pods = world.job.status.attempts, world.lingering()
    since = attempts[-1].end_time if attempts else None
    if not pods or since is None or world.now - since < PATIENCE:
        return ()
    message = f"attempt {len(attempts) + 1} waits for pod {pods[0].name} of attempt {len(attempts)} to end; {NODE_LOST}"
    return write(world, update(world.job.status, phase=Phase.STARTING, message=message), event(world, "PodLingers", message, warning=True))


def _pause_left(world: World) -> float:
    """Seconds until the next attempt may begin."""
    cut_off = [attempt for attempt in world.job.status.attempts if attempt.reason != SUSPENDED]
    if not cut_off or cut_off[-1].end_time is None:
        return 0.0
    pause = pause_after(cut_off, world.job.ref.uid)
    return min(pause, pause - (world.now - cut_off[-1].end_time).total_seconds())


def pause_after(cut_off: list[Attempt], uid: str) -> float:
    """Seconds from the end of the last of these attempts to the next: 10, doubled with each that ended soon, at most 300, less jitter.

    The jitter follows from job and attempt, because planning again must come to the same moment.
    """
    soon = len(list(takewhile(_ended_soon, reversed(cut_off))))
    drawn = hashlib.sha256(f"{uid}/{cut_off[-1].number}".encode()).digest()[0] / 256
    return round(min(MAX_PAUSE, FIRST_PAUSE * 2.0 ** min(max(0, soon - 1), 10)) * (1 - JITTER * drawn), 3)


def _ended_soon(attempt: Attempt) -> bool:
    return attempt.start_time is None or attempt.end_time is None or attempt.end_time - attempt.start_time < CALM
