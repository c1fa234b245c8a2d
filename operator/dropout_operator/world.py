"""What the operator sees of one job at one moment: frozen views over the API server's JSON.

`plan` takes a `World` and nothing else, so every decision can be tested by writing a world down.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pydantic import ValidationError

from dropout_api.names import Label, Stage
from dropout_api.problems import problems, summary
from dropout_api.report import ProgressSample
from dropout_api.spec import JobSpec
from dropout_api.status import JobStatus, RunStatus
from dropout_api.task import JobRef
from dropout_operator.objects import Object
from dropout_operator.settings import Settings

COMPLETION_INDEX = "batch.kubernetes.io/job-completion-index"
"""Label by which the Job controller numbers the pods of an Indexed Job."""


def parse_time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


@dataclass(frozen=True)
class TrainingJob:
    """The custom resource. `spec` is None where it cannot be read, and `problem` says why."""

    ref: JobRef
    generation: int
    created: datetime
    deleting: bool
    status: JobStatus
    spec: JobSpec | None
    problem: str | None

    @classmethod
    def parse(cls, raw: Object, cluster: str) -> "TrainingJob":
        meta = raw["metadata"]
        spec, problem = _spec(raw.get("spec", {}))
        created = parse_time(meta["creationTimestamp"])
        assert created is not None
        return cls(
            ref=JobRef(cluster=cluster, namespace=meta["namespace"], name=meta["name"], uid=meta["uid"]),
            generation=meta.get("generation", 1), created=created, deleting="deletionTimestamp" in meta,
            status=JobStatus.model_validate(raw.get("status") or {}), spec=spec, problem=problem,
        )


def _spec(raw: Any) -> tuple[JobSpec | None, str | None]:
    """The spec and everything that is wrong with it. A wrong one is read where it can be: its time to live counts."""
    found = problems(raw)
    try:
        return JobSpec.model_validate(raw), summary(found) or None
    except ValidationError:
        return None, summary(found) or "spec cannot be read"


@dataclass(frozen=True)
class JobView:
    """A batch/v1 Job of ours."""

    namespace: str
    name: str
    uid: str
    owner_uid: str | None
    stage: str
    created: datetime
    deleting: bool
    suspended: bool
    complete: bool
    failed: bool
    reason: str
    """Why it failed or, while its pods still end, will have: BackoffLimitExceeded, DeadlineExceeded or PodFailurePolicy."""
    message: str

    @classmethod
    def parse(cls, raw: Object) -> "JobView":
        meta, conditions = raw["metadata"], raw.get("status", {}).get("conditions", [])
        true = {condition["type"]: condition for condition in conditions if condition["status"] == "True"}
        failed = true.get("Failed") or true.get("FailureTarget", {})
        created = parse_time(meta["creationTimestamp"])
        assert created is not None
        return cls(
            namespace=meta["namespace"], name=meta["name"], uid=meta["uid"], owner_uid=controller_uid(meta),
            stage=meta.get("labels", {}).get(Label.STAGE, ""),
            created=created, deleting="deletionTimestamp" in meta, suspended=bool(raw.get("spec", {}).get("suspend")),
            complete="Complete" in true, failed="Failed" in true, reason=failed.get("reason", ""), message=failed.get("message", ""),
        )

    @property
    def finished(self) -> bool:
        return self.complete or self.failed


@dataclass(frozen=True)
class Terminated:
    exit_code: int
    reason: str
    message: str
    finished: datetime | None


@dataclass(frozen=True)
class Disruption:
    """That a pod is ended for a reason outside of it."""

    reason: str
    """Of the condition DisruptionTarget, as EvictionByEvictionAPI, or PodDeleted."""
    message: str
    since: datetime | None = None


@dataclass(frozen=True)
class PodView:
    """A pod of one of our Jobs, and its one container."""

    namespace: str
    name: str
    owner_uid: str | None
    created: datetime
    deleted: datetime | None
    """When its deletion was asked for; it stays until its processes have ended."""
    disruption: Disruption | None
    """Its condition DisruptionTarget, which schedulers, evictions and kubelets set."""
    index: int
    """Number of its node in a training of several, from 0."""
    phase: str
    reason: str
    """Of the pod itself, as Evicted."""
    message: str
    ip: str | None
    host_network: bool
    scheduled: datetime | None
    unschedulable: str | None
    """The scheduler's words when no node fits."""
    started: datetime | None
    """When its container began to run."""
    waiting_reason: str
    waiting_message: str
    terminated: Terminated | None
    image_id: str
    devices: dict[str, str]

    @property
    def stays(self) -> bool:
        """Whether nothing ends it, nor has ended it. Of a pod that is gone but for its object the times say little: the kubelet's own
        deletion moves the time of the user's."""
        return self.terminated is None and self.deleted is None and self.disruption is None

    @classmethod
    def parse(cls, raw: Object) -> "PodView":
        meta, spec, status = raw["metadata"], raw.get("spec", {}), raw.get("status", {})
        container: Object = next(iter(status.get("containerStatuses", [])), {})
        state = container.get("state", {})
        waiting = state.get("waiting", {})
        scheduled: Object = next((c for c in status.get("conditions", []) if c["type"] == "PodScheduled"), {})
        created = parse_time(meta["creationTimestamp"])
        assert created is not None
        return cls(
            namespace=meta["namespace"], name=meta["name"], owner_uid=controller_uid(meta), created=created, deleted=_deleted(meta),
            disruption=_disruption(status), index=_index(meta), phase=status.get("phase", "Pending"), reason=status.get("reason", ""),
            message=status.get("message", ""),
            ip=status.get("podIP"), host_network=bool(spec.get("hostNetwork")),
            scheduled=parse_time(scheduled.get("lastTransitionTime")) if scheduled.get("status") == "True" else None,
            unschedulable=scheduled.get("message", "") if scheduled.get("reason") == "Unschedulable" else None,
            started=parse_time((state.get("running") or state.get("terminated") or {}).get("startedAt")),
            waiting_reason=waiting.get("reason", ""), waiting_message=waiting.get("message", ""),
            terminated=_terminated(state.get("terminated")), image_id=container.get("imageID", ""), devices=_devices(spec),
        )


def _index(meta: Object) -> int:
    told = str(meta.get("labels", {}).get(COMPLETION_INDEX, ""))
    return int(told) if told.isdecimal() else 0


def _deleted(meta: Object) -> datetime | None:
    end = parse_time(meta.get("deletionTimestamp"))  # when the grace period is over
    return end and end - timedelta(seconds=meta.get("deletionGracePeriodSeconds") or 0)


def _disruption(status: Object) -> Disruption | None:
    found: Object = next((item for item in status.get("conditions", []) if item["type"] == "DisruptionTarget"), {})
    if found.get("status") != "True":
        return None
    return Disruption(found.get("reason") or "DisruptionTarget", found.get("message", ""), parse_time(found.get("lastTransitionTime")))


def controller_uid(meta: Object) -> str | None:
    return next((owner["uid"] for owner in meta.get("ownerReferences", []) if owner.get("controller")), None)


def _terminated(state: Object | None) -> Terminated | None:
    if state is None:
        return None
    return Terminated(
        exit_code=state.get("exitCode", 0), reason=state.get("reason", ""), message=state.get("message", ""),
        finished=parse_time(state.get("finishedAt")),
    )


def _devices(spec: Object) -> dict[str, str]:
    container: Object = next(iter(spec.get("containers", [])), {})
    limits = container.get("resources", {}).get("limits", {})
    return {name: str(count) for name, count in limits.items() if "/" in name}


@dataclass(frozen=True)
class Blocked:
    """A refusal by the API server; `final` when trying again cannot help."""

    reason: str
    message: str
    final: bool


@dataclass(frozen=True)
class SourceRun:
    """A run that a spec names, as MLflow has it. One that does not exist has no experiment, so it is nobody's."""

    id: str
    experiment_id: str = ""
    experiment: str = ""
    """Full name. Only the operator gives those, so it says whose the run is."""
    namespace: str = ""
    """By the run's tag, which a trainer of its namespace may have written."""
    active: bool = False
    """Whether it has not ended yet."""
    verified: str = ""
    """By its tag, the run whose candidate it verified again itself."""
    image_id: str | None = None
    """Image that trained the model, by the status of the job that did; None where there is no such job any more."""


@dataclass(frozen=True)
class World:
    """One job, its children and the time."""

    job: TrainingJob
    now: datetime
    settings: Settings
    children: tuple[JobView, ...] = ()
    pods: tuple[PodView, ...] = ()
    progress: ProgressSample | None = None
    run: RunStatus | None = None
    """The MLflow run, once it was found or made; the one in status where there is one."""
    source: SourceRun | None = None
    """The run of `spec.from`, once it was looked up."""
    weights: SourceRun | None = None
    """The run that has the weights of `spec.model.weights`, once it was looked up."""
    tracking_problem: str | None = None
    """Why MLflow could not be asked just now."""

    blocked: Blocked | None = None
    """Why the API server would not create a child just now."""

    def child(self, namespace: str, name: str) -> JobView | None:
        """The Job of that place. Both matter: anyone may give a Job of their own namespace our labels and names."""
        return next((child for child in self.children if (child.namespace, child.name) == (namespace, name)), None)

    def pods_of(self, child: JobView) -> tuple[PodView, ...]:
        """Newest first. Of its own namespace alone: an owner reference across namespaces proves nothing."""
        mine = (pod for pod in self.pods if pod.owner_uid == child.uid and pod.namespace == child.namespace)
        return tuple(sorted(mine, key=lambda pod: pod.created, reverse=True))

    def lead_of(self, child: JobView) -> PodView | None:
        """The pod of rank 0: it alone tells progress and leaves the report."""
        return next((pod for pod in self.pods_of(child) if pod.index == 0), None)

    def lingering(self) -> tuple[PodView, ...]:
        """Training pods that have not ended, also those whose Job is gone already: whoever deletes a Job may leave its pods."""
        return tuple(pod for pod in self.pods if pod.namespace == self.job.ref.namespace and pod.phase not in ("Succeeded", "Failed"))

    def training(self) -> tuple[JobView, ...]:
        return tuple(child for child in self.children if child.stage == Stage.TRAIN and child.owner_uid == self.job.ref.uid)
