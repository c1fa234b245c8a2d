"""Drives the work: keys come in, workers look at a job, plan and act; what fails is tried again later.

Level-triggered: an event says only that something happened, never what, so a lost one costs time and nothing else. A
periodic listing finds what the watch missed and what deleted jobs left behind.
"""

import asyncio
import logging
import random
import time
from dataclasses import dataclass, field

from dropout_api.names import Condition, Label, Stage
from dropout_api.status import JobStatus
from dropout_operator import statuses
from dropout_operator.apply import Executor
from dropout_operator.kube import ApiError, Kube, jobs_path, training_jobs_path
from dropout_operator.metrics import Metrics
from dropout_operator.mlflow_calls import TrackingError
from dropout_operator.objects import Object
from dropout_operator.observe import Observer
from dropout_operator.planning import plan
from dropout_operator.settings import Settings
from dropout_operator.tracking import ActiveRun, Tracking
from dropout_operator.workqueue import WorkQueue
from dropout_operator.world import World

logger = logging.getLogger(__name__)
Key = tuple[str, str]
MAX_ROUNDS = 4  # a plan may need what its own action found out (the run's id, a refusal); more rounds than this is a bug
SWEEP_DELAY = 1.0  # several deletions at once are one sweep


@dataclass
class Controller:
    """Everything that works, and what it works with."""

    kube: Kube
    tracking: Tracking
    observer: Observer
    executor: Executor
    metrics: Metrics
    settings: Settings
    queue: WorkQueue[Key] = field(default_factory=WorkQueue)
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    working: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once every task of this controller is there: kopf, when it fails, cancels what was started after it."""
    _sweep: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Works until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._resync_forever())
            group.create_task(self._sweep_forever())
            for _ in range(self.settings.workers):
                group.create_task(self._work())
            self.working.set()

    def saw_job(self, raw: Object) -> None:
        """A training job was listed or changed."""
        meta = raw["metadata"]
        self.metrics.show_job(meta["namespace"], meta["name"], JobStatus.model_validate(raw.get("status") or {}))
        self.queue.add((meta["namespace"], meta["name"]))

    def lost_job(self, namespace: str, name: str) -> None:
        """A training job was deleted."""
        self.metrics.forget_job(namespace, name)
        self._sweep.set()

    def saw_child(self, raw: Object) -> None:
        """A Job or a pod of ours changed. Its labels only say whom to look at; whose it is, the look itself finds out."""
        labels = raw["metadata"].get("labels", {})
        if Label.NAMESPACE in labels and Label.NAME in labels:
            self.queue.add((labels[Label.NAMESPACE], labels[Label.NAME]))

    async def _work(self) -> None:
        await self.ready.wait()
        while True:
            key = await self.queue.get()
            self.metrics.queue.set(len(self.queue))
            started = time.monotonic()
            try:
                outcome = await self._look(key)
            finally:
                self.queue.done(key)
            self.metrics.seconds.observe(time.monotonic() - started)
            self.metrics.reconciles.labels(outcome).inc()

    async def _look(self, key: Key) -> str:
        """One look at a job; every error becomes a later look. Gives the outcome's name."""
        namespace, name = key
        try:
            again = await self.reconcile(namespace, name)
        except ApiError as error:
            if error.namespace_terminating:
                return "forgotten"
            pause = self.queue.fail(key, error.retry_after or 0.0)
            logger.warning("%s/%s: %s; again in %.1f s", namespace, name, error, pause)
            return "api_error"
        except TrackingError as error:
            pause = self.queue.fail(key)
            logger.warning("%s/%s: MLflow: %s; again in %.1f s", namespace, name, error, pause)
            return "tracking_error"
        except Exception:
            self.queue.fail(key)
            logger.exception("%s/%s: this is a bug", namespace, name)
            return "bug"
        self.queue.succeed(key)
        if again is not None:
            self.queue.add_after(key, again)
        return "ok"

    async def reconcile(self, namespace: str, name: str) -> float | None:
        """Observe, plan, act. Gives the seconds after which to look again, None when nothing is to be waited for."""
        world = await self.observer.observe(namespace, name)
        if world is None:
            self.lost_job(namespace, name)
            return None
        for _ in range(MAX_ROUNDS):
            decided = plan(world)
            known = _found_out(world)
            for action in decided.actions:
                world = await self.executor.perform(action, world)
                if _found_out(world) != known:
                    break
            else:
                return decided.again
        raise RuntimeError(f"planning does not settle: {decided.actions[:1]}")

    async def _resync_forever(self) -> None:
        while True:
            try:
                await self._resync()
                self.ready.set()
                pause = self.settings.resync_seconds * random.uniform(0.8, 1.2)  # noqa: S311 - jitter
            except ApiError as error:
                logger.warning("listing the training jobs: %s", error)
                pause = max(2.0, error.retry_after or 0.0)
            await asyncio.sleep(pause)

    async def _resync(self) -> None:
        """Looks at every job that has not reached its end, forgets those that are gone, sweeps up after them."""
        there = set()
        async for raw in self.kube.list(training_jobs_path()):
            meta = raw["metadata"]
            there.add((meta["namespace"], meta["name"]))
            status = JobStatus.model_validate(raw.get("status") or {})
            self.metrics.show_job(meta["namespace"], meta["name"], status)
            if not _at_rest(raw, status):
                self.queue.add((meta["namespace"], meta["name"]))
        for namespace, name in self.metrics.shown() - there:
            self.metrics.forget_job(namespace, name)
        self._sweep.set()

    async def _sweep_forever(self) -> None:
        while True:
            await self._sweep.wait()
            await asyncio.sleep(SWEEP_DELAY)
            self._sweep.clear()
            try:
                await self.sweep()
            except (ApiError, TrackingError) as error:
                logger.warning("sweeping up after deleted jobs: %s", error)
                asyncio.get_running_loop().call_later(10.0, self._sweep.set)

    async def sweep(self) -> None:
        """Ends the MLflow runs and verify Jobs of jobs that are gone, and runs that a job has beside its own: a request to
        MLflow that was given up may have been done all the same.

        Runs and Jobs are listed before the training jobs: each was made for one that existed, so one that is missing from
        the later list was deleted.
        """
        runs = await self.tracking.active_runs()
        selector = f"{Label.STAGE}={Stage.VERIFY}"
        verifiers = [raw async for raw in self.kube.list(jobs_path(self.settings.namespace), labelSelector=selector)]
        alive = {raw["metadata"]["uid"]: _run_id(raw) async for raw in self.kube.list(training_jobs_path())}
        for raw in verifiers:
            if raw["metadata"]["labels"].get(Label.UID) not in alive:
                await self.kube.delete(jobs_path(self.settings.namespace, raw["metadata"]["name"]), raw["metadata"]["uid"])
        for run in runs:
            why = _orphaned(run, alive)
            if why is not None:
                await self.tracking.end_run(run.id, "KILLED", "Deleted", why)
                logger.info("MLflow run %s is KILLED: %s", run.id, why)


def _run_id(raw: Object) -> str | None:
    run_id: str | None = raw.get("status", {}).get("run", {}).get("id")
    return run_id


def _orphaned(run: ActiveRun, alive: dict[str, str | None]) -> str | None:
    """Why nobody will end this run, None where somebody will. A job that has no run yet may be about to take this one."""
    if run.job_uid not in alive:
        return "the training job was deleted before it ended"
    own = alive[run.job_uid]
    return f"the training job's run is {own}" if own not in (None, run.id) else None


def _found_out(world: World) -> tuple[object, ...]:
    return (world.run, world.source, world.weights, world.tracking_problem, world.blocked)


def _at_rest(raw: Object, status: JobStatus) -> bool:
    return status.phase.terminal and statuses.holds(status, Condition.RUN_CLOSED) and not raw["spec"].get("ttlSecondsAfterFinished")
