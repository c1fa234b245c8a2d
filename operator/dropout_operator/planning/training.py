"""While the training Job lives: waiting, running, progress."""

from datetime import timedelta

from dropout_api.names import Condition
from dropout_api.status import Failure, JobStatus, Phase, Progress
from dropout_operator import diagnosis, statuses
from dropout_operator.actions import EmitEvent, MarkRun
from dropout_operator.planning import restarting
from dropout_operator.planning.attempts import of_attempt, start
from dropout_operator.planning.common import LOOK_AGAIN_SECONDS, Plan, about_tracking, event, fail, write
from dropout_operator.planning.verifying import trained
from dropout_operator.planning.weights import look_up
from dropout_operator.statuses import update, with_attempt, with_condition
from dropout_operator.world import JobView, PodView, World

BUFFERING = "the trainer cannot reach MLflow and keeps its metrics until it can"
NO_POD_YET = timedelta(seconds=10)
"""The time that a Job's pod takes to appear is not worth a word, and a word is a write."""


def train(world: World) -> Plan:
    """Follows the Job of the latest attempt."""
    status = world.job.status
    name = status.attempts[-1].job
    job = world.child(world.job.ref.namespace, name)
    if job is None:
        if status.phase in (Phase.QUEUED, Phase.RUNNING):
            return fail(world, Failure(reason="JobDeleted", message=f"Job {name} was deleted while it ran; create the training job again"))
        return look_up(world) or Plan(start(world, status), LOOK_AGAIN_SECONDS)
    if job.owner_uid != world.job.ref.uid:
        message = f"a Job {name} that is not this job's exists; delete it, or give this job another name"
        return fail(world, Failure(reason="NameConflict", message=message))
    if job.complete:
        return trained(world, job)
    if job.failed:
        return restarting.ended(world, job)
    return _under_way(world, job)


def _under_way(world: World, job: JobView) -> Plan:
    pods = world.pods_of(job)
    if (cause := diagnosis.disruption(job, pods)) is not None:
        return restarting.interrupted(world, job, cause)
    lead, pod = world.lead_of(job), next((pod for pod in pods if pod.started is None), None)
    if lead is not None and pod is None and len(pods) >= _nodes(world):
        return _running(world, lead, pods)
    if not pods and not job.suspended and world.now - job.created < NO_POD_YET:
        return Plan((), LOOK_AGAIN_SECONDS)
    queued = job.suspended or (pod is not None and pod.unschedulable is not None)
    reason, message = diagnosis.waiting_for(pod, job)
    if _nodes(world) > 1:
        message = f"{sum(pod.started is not None for pod in pods)} of {_nodes(world)} pods run: {message}"
    if not queued and _late(world, job, pod):
        late = f"not started within spec.startDeadlineSeconds: {message}"
        return fail(world, Failure(reason=reason, message=late, pod=pod.name if pod else None), job)
    status = update(world.job.status, phase=Phase.QUEUED if queued else Phase.STARTING, message=of_attempt(world.job.status, message))
    status = with_attempt(status, disruption=None) if pod is not None and pod.stays else status
    told: tuple[EmitEvent, ...] = ()
    if queued:
        told = (event(world, "Queued", message),)
    elif reason in diagnosis.START_PROBLEMS:
        told = (event(world, reason, message, warning=True),)
    return Plan(write(world, status, *told), LOOK_AGAIN_SECONDS)


def _late(world: World, job: JobView, pod: PodView | None) -> bool:
    assert world.job.spec is not None
    since = pod.scheduled or pod.created if pod else job.created
    return world.now - since > timedelta(seconds=world.job.spec.start_deadline_seconds)


def _nodes(world: World) -> int:
    return world.job.spec.nodes if world.job.spec else 1


def _running(world: World, pod: PodView, pods: tuple[PodView, ...]) -> Plan:
    """All `pods` run; `pod` is that of rank 0."""
    status, stays = world.job.status, all(pod.stays for pod in pods)
    begins = status.phase is not Phase.RUNNING
    spared = status.attempts[-1].disruption is not None and stays  # Kubernetes took it back
    new = update(status, phase=Phase.RUNNING, devices=pod.devices, image_id=pod.image_id or None)
    new = with_attempt(new, start_time=pod.started, **({"disruption": None} if stays else {}))
    if begins or spared:
        new = update(new, message=of_attempt(status, "training"))
    told = (event(world, "TrainingStarted", f"pod {pod.name} runs {pod.image_id or 'its image'}"),) if begins else ()
    mark = (MarkRun(world.run.id, "RUNNING"),) if begins and world.run else ()
    new = _with_progress(world, new)
    return Plan((*write(world, new, *told, *about_tracking(world, new)), *mark), world.settings.poll_seconds)


def _with_progress(world: World, status: JobStatus) -> JobStatus:
    sample = world.progress
    if sample is None or sample.attempt != status.attempts[-1].number or sample.epoch == 0:
        return status
    if sample.tracking_healthy:
        status = with_condition(world, status, Condition.TRACKING_HEALTHY, True, "Writes", "")
    else:
        status = with_condition(world, status, Condition.TRACKING_HEALTHY, False, "Buffering", BUFFERING)
    old, new = status.progress, statuses.progress_of(sample, world.now)
    if not statuses.worth_writing(old, new):
        return status
    status = update(status, progress=new, message=progress_line(new))
    return with_condition(world, status, Condition.PROGRESS_AVAILABLE, True, "Polled", "")


def progress_line(progress: Progress) -> str:
    """One line for people."""
    parts = [f"epoch {progress.epoch}/{progress.epochs}"]
    parts += [f"{name} {progress.metrics[name]:.4f}" for name in ("train_loss", "val_loss", "val_gap") if name in progress.metrics]
    return ", ".join(parts)
