"""Performs actions. Each may be repeated: what is already so is taken as done.

`perform` gives back the world as the action changed it, so that planning can go on without reading again.
"""

import hashlib
import logging
from dataclasses import replace
from datetime import UTC, datetime

from dropout_api.names import API_VERSION, GROUP, KIND
from dropout_api.status import JobStatus
from dropout_api.task import JobRef
from dropout_operator.actions import (
    Action,
    CreateJob,
    CreateSecret,
    CreateService,
    DeleteJob,
    DeleteTrainingJob,
    EmitEvent,
    EndRun,
    EnsureRun,
    FindSource,
    FindWeights,
    MarkRun,
    WriteStatus,
)
from dropout_operator.kube import ApiError, Kube, core_path, jobs_path, training_jobs_path
from dropout_operator.mlflow_calls import TrackingError
from dropout_operator.objects import Object
from dropout_operator.tracking import Tracking
from dropout_operator.world import Blocked, World

logger = logging.getLogger(__name__)
MAX_EVENT = 1024
COMPONENT = "dropout-operator"


class Executor:
    """The only place with side effects on the cluster and on MLflow."""

    def __init__(self, kube: Kube, tracking: Tracking) -> None:
        self._kube = kube
        self._tracking = tracking

    async def perform(self, action: Action, world: World) -> World:
        """Raises ApiError and TrackingError where trying again may help."""
        match action:
            case EnsureRun():
                return await self._ensure_run(action, world)
            case FindSource(run_id):
                return await self._find_source(run_id, world)
            case FindWeights():
                return await self._find_weights(action, world)
            case WriteStatus():
                return await self._write_status(action, world)
            case CreateSecret(body):
                return await self._create(core_path(world.job.ref.namespace, "secrets"), body, world)
            case CreateService(body):
                return await self._create(core_path(world.job.ref.namespace, "services"), body, world)
            case CreateJob(body):
                return await self._create(jobs_path(body["metadata"]["namespace"]), body, world)
            case DeleteJob(namespace, name, uid):
                await self._kube.delete(jobs_path(namespace, name), uid, "Foreground")
            case MarkRun(run_id, state):
                await self._mark_run(run_id, state)
            case EndRun(run_id, end, phase, message):
                await self._tracking.end_run(run_id, end, phase, message)
            case EmitEvent():
                await self._emit(action, world.job.ref)
            case DeleteTrainingJob():
                await self._kube.delete(training_jobs_path(world.job.ref.namespace, world.job.ref.name), world.job.ref.uid)
        return world

    async def _ensure_run(self, action: EnsureRun, world: World) -> World:
        try:
            return replace(world, run=await self._tracking.ensure_run(world.job.ref, action.experiment, action.source))
        except TrackingError as error:
            return replace(world, tracking_problem=str(error))

    async def _find_source(self, run_id: str, world: World) -> World:
        try:
            source = await self._tracking.find_source(run_id)
        except TrackingError as error:
            return replace(world, tracking_problem=str(error))
        return replace(world, source=replace(source, image_id=await self._image_of(run_id, world.job.ref.namespace)))

    async def _find_weights(self, action: FindWeights, world: World) -> World:
        try:
            return replace(world, weights=await self._tracking.find_weights(action.weights, world.job.ref.namespace))
        except TrackingError as error:
            return replace(world, tracking_problem=str(error))

    async def _image_of(self, run_id: str, namespace: str) -> str | None:
        """The image in the status of the namespace's job that has this run: the operator writes there, and no trainer does."""
        async for raw in self._kube.list(training_jobs_path(namespace)):
            status = JobStatus.model_validate(raw.get("status") or {})
            if status.run is not None and status.run.id == run_id:
                return status.image_id
        return None

    async def _write_status(self, action: WriteStatus, world: World) -> World:
        job = world.job.ref
        body = {
            "apiVersion": f"{GROUP}/{API_VERSION}", "kind": KIND,
            "metadata": {"name": job.name, "namespace": job.namespace, "uid": job.uid},  # the UID keeps us off a namesake made later
            "status": action.status.to_wire(),
        }
        await self._kube.apply(training_jobs_path(job.namespace, job.name, "/status"), body)
        return replace(world, job=replace(world.job, status=action.status))

    async def _create(self, path: str, body: Object, world: World) -> World:
        try:
            await self._kube.create(path, body)
        except ApiError as error:
            if error.status == 409 and not error.namespace_terminating:
                return world  # it is there; whose it is, the next look tells
            if error.retryable or error.namespace_terminating:
                raise
            return replace(world, blocked=Blocked("CreateFailed", error.message, final=error.status in (400, 422)))
        return world

    async def _mark_run(self, run_id: str, state: str) -> None:
        try:
            await self._tracking.set_state(run_id, "RUNNING" if state == "RUNNING" else "SCHEDULED")
        except TrackingError as error:
            logger.warning("MLflow run %s was not marked %s: %s", run_id, state, error)

    async def _emit(self, event: EmitEvent, job: JobRef) -> None:
        try:
            await self._kube.create(core_path(job.namespace, "events"), event_body(event, job, datetime.now(UTC)))
        except ApiError as error:
            if error.namespace_terminating:  # what its pods come to now is no failure of theirs
                raise
            if error.status != 409:  # told before; and an Event that cannot be told stops nothing
                logger.warning("Event %s of %s/%s was not written: %s", event.reason, job.namespace, job.name, error)


def event_body(event: EmitEvent, job: JobRef, now: datetime) -> Object:
    """A core/v1 Event whose name follows from what it tells, so that telling it twice gives one."""
    digest = hashlib.sha256(f"{job.uid}/{event.attempt}/{event.reason}/{event.message}".encode()).hexdigest()[:16]
    time = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "apiVersion": "v1", "kind": "Event", "metadata": {"name": f"{job.name}.{digest}", "namespace": job.namespace},
        "involvedObject": {
            "apiVersion": f"{GROUP}/{API_VERSION}", "kind": KIND, "name": job.name, "namespace": job.namespace, "uid": job.uid,
        },
        "type": event.type, "reason": event.reason, "message": event.message[:MAX_EVENT], "count": 1,
        "firstTimestamp": time, "lastTimestamp": time, "source": {"component": COMPONENT}, "reportingComponent": COMPONENT,
    }
