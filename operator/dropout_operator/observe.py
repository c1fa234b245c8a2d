"""Reads the world of one job, afresh at each look: what a cache would save is less than what a stale one costs."""

from datetime import UTC, datetime

from dropout_api.names import Condition, Label, Stage
from dropout_operator import statuses
from dropout_operator.kube import Kube, core_path, jobs_path, training_jobs_path
from dropout_operator.manifests import verify_job_name
from dropout_operator.progress import ProgressPoller
from dropout_operator.settings import Settings
from dropout_operator.world import JobView, PodView, TrainingJob, World


class Observer:
    """Makes a `World` from the API server and, for a running pod, its progress."""

    def __init__(self, kube: Kube, poller: ProgressPoller, settings: Settings, cluster: str) -> None:
        self._kube = kube
        self._poller = poller
        self._settings = settings
        self._cluster = cluster

    async def observe(self, namespace: str, name: str) -> World | None:
        """The job's world, None where there is no such job. Raises ApiError."""
        raw = await self._kube.get(training_jobs_path(namespace, name))
        if raw is None:
            return None
        job = TrainingJob.parse(raw, self._cluster)
        if job.status.phase.terminal and statuses.holds(job.status, Condition.RUN_CLOSED):
            return World(job=job, now=_now(), settings=self._settings, run=job.status.run)
        children = await self._children(job)
        pods = await self._pods(job, children)
        running = next((pod for pod in pods if pod.index == 0 and pod.started is not None and pod.terminated is None), None)
        progress = await self._poller.poll(running) if running and running.namespace == namespace else None
        return World(
            job=job, now=_now(), settings=self._settings, children=children, pods=pods, progress=progress, run=job.status.run,
        )

    async def _children(self, job: TrainingJob) -> tuple[JobView, ...]:
        selector = f"{Label.UID}={job.ref.uid},{Label.STAGE}={Stage.TRAIN}"
        listed = self._kube.list(jobs_path(job.ref.namespace), labelSelector=selector)
        found = {view.name: view async for view in (JobView.parse(raw) async for raw in listed)}
        latest = job.status.attempts[-1].job if job.status.attempts else None
        if latest is not None and latest not in found:  # a stranger's Job of this name has no label of ours
            raw = await self._kube.get(jobs_path(job.ref.namespace, latest))
            found |= {latest: JobView.parse(raw)} if raw else {}
        children = tuple(found.values())
        if not statuses.holds(job.status, Condition.TRAINED):
            return children
        raw = await self._kube.get(jobs_path(self._settings.namespace, verify_job_name(job.ref)))
        return (*children, JobView.parse(raw)) if raw else children

    async def _pods(self, job: TrainingJob, children: tuple[JobView, ...]) -> tuple[PodView, ...]:
        trained, attempts = statuses.holds(job.status, Condition.TRAINED), job.status.attempts
        over = not trained and bool(attempts) and attempts[-1].end_time is not None  # its pods may outlive its Job
        stage, namespace = (Stage.VERIFY, self._settings.namespace) if trained else (Stage.TRAIN, job.ref.namespace)
        if not over and not any(child.stage == stage for child in children):
            return ()
        selector = f"{Label.UID}={job.ref.uid},{Label.STAGE}={stage}"
        return tuple([PodView.parse(raw) async for raw in self._kube.list(core_path(namespace, "pods"), labelSelector=selector)])


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)
