"""Worlds written down: builders of what the operator sees of one job, and a simulation that its actions change.

The builders take wire names (`spec(dropout={"rate": 0.1})`), so a test reads like the manifest and status it is about.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from dropout_api.names import Condition, Label, Stage
from dropout_api.spec import JobSpec
from dropout_api.status import JobStatus, Phase, RunStatus
from dropout_api.task import JobRef
from dropout_operator import manifests, statuses
from dropout_operator.actions import (
    Action,
    CreateJob,
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
from dropout_operator.planning import plan
from dropout_operator.settings import Settings
from dropout_operator.world import Disruption, JobView, PodView, SourceRun, Terminated, TrainingJob, World

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
REF = JobRef(cluster="cluster-uid", namespace="team", name="digits", uid="11111111-2222-3333-4444-555555555555")
RUN = RunStatus(id="a" * 32, experiment_id="7", url="http://mlflow/#/experiments/7/runs/" + "a" * 32)
SOURCE = SourceRun(id="b" * 32, experiment_id="8", experiment="team.other", namespace="team")
"""A run that another job of the namespace left, with a candidate."""
SHA = "0" * 64
SETTINGS = Settings(
    namespace="dropout-system", trainer_image="trainer:1", verifier_image="verifier:1", image_pull_policy="IfNotPresent",
    mlflow_uri="http://mlflow", mlflow_public_url="http://mlflow", mlflow_auth=False, trainer_key=b"", verifier_secret=None,
    verifier_service_account="verifier",
)


def spec_wire(**changes: Any) -> dict[str, Any]:
    """The smallest spec, with these fields changed, as it stands in a manifest."""
    return {"model": {"factory": "mlp"}, "data": {"factory": "sklearn", "args": {"name": "digits"}}, **changes}


def spec(**changes: Any) -> JobSpec:
    return JobSpec.model_validate(spec_wire(**changes))


def tuned(**weights: Any) -> JobSpec:
    """The spec of a job that starts from weights, by default from those of SOURCE."""
    return spec(model={"factory": "mlp", "weights": weights or {"run": SOURCE.id}})


def again(**changes: Any) -> JobSpec:
    """The spec of a job that verifies the candidate of SOURCE again."""
    return JobSpec.model_validate({"from": {"run": SOURCE.id}, **changes})


def status(phase: str = "Pending", **fields: Any) -> JobStatus:
    return JobStatus.model_validate({"phase": phase, "observedGeneration": 1, **fields})


def conditions(**kinds: bool) -> list[dict[str, Any]]:
    """Conditions by type, as `conditions(Trained=True)`."""
    return [
        {"type": kind, "status": str(value), "reason": "Test", "lastTransitionTime": NOW.isoformat()}
        for kind, value in sorted(kinds.items())
    ]


def under_way(phase: str = "Starting", **fields: Any) -> JobStatus:
    """The status of a job whose first attempt has begun."""
    begun = {"run": RUN.to_wire(), "attempts": [{"number": 1, "job": f"{REF.name}-1"}], "startTime": NOW.isoformat()}
    return status(phase, **{**begun, **fields})


def verifying(**fields: Any) -> JobStatus:
    """The status of a job whose training has ended."""
    ended = {"attempts": [{"number": 1, "job": f"{REF.name}-1", "reason": "Completed", "endTime": NOW.isoformat()}]}
    return under_way("Verifying", **{**ended, "conditions": conditions(Trained=True), **fields})


def verifying_again(phase: str = "Verifying", **fields: Any) -> JobStatus:
    """The status of a job whose verifier was made for the candidate of SOURCE."""
    begun = {"run": RUN.to_wire(), "startTime": NOW.isoformat(), "conditions": conditions(Trained=True, TrackingHealthy=True)}
    return status(phase, **{**begun, **fields})


def training_job(
    state: JobStatus | None = None, *, wanted: JobSpec | None = None, deleting: bool = False, problem: str | None = None,
    generation: int = 1,
) -> TrainingJob:
    return TrainingJob(
        ref=REF, generation=generation, created=NOW, deleting=deleting, status=state or JobStatus(),
        spec=None if problem else wanted or spec(), problem=problem,
    )


def train_job(attempt: int = 1, **changes: Any) -> JobView:
    """The training Job of an attempt, by default with nothing happened to it yet."""
    return replace(_job(REF.namespace, f"{REF.name}-{attempt}", REF.uid, Stage.TRAIN), uid=f"train-{attempt}", **changes)


def verify_job(**changes: Any) -> JobView:
    return replace(_job(SETTINGS.namespace, manifests.verify_job_name(REF), None, Stage.VERIFY), **{"uid": "verify-1", **changes})


def _job(namespace: str, name: str, owner: str | None, stage: str) -> JobView:
    return JobView(
        namespace=namespace, name=name, uid=f"{namespace}/{name}", owner_uid=owner, stage=stage, created=NOW, deleting=False,
        suspended=False, complete=False, failed=False, reason="", message="",
    )


def pod(child: JobView, **changes: Any) -> PodView:
    """A pod of a Job, by default scheduled and not yet running."""
    waiting = PodView(
        namespace=child.namespace, name=f"{child.name}-x", owner_uid=child.uid, created=NOW, deleted=None, disruption=None,
        index=0, phase="Pending", reason="", message="",
        ip=None, host_network=False, scheduled=NOW, unschedulable=None, started=None,
        waiting_reason="ContainerCreating", waiting_message="", terminated=None, image_id="", devices={},
    )
    return replace(waiting, **changes)


def running_pod(child: JobView, **changes: Any) -> PodView:
    return pod(child, **{"phase": "Running", "ip": "10.0.0.1", "started": NOW, "waiting_reason": "", "image_id": "sha256:abc", **changes})


def ended_pod(child: JobView, exit_code: int = 0, message: str = "", reason: str = "", **changes: Any) -> PodView:
    end = Terminated(exit_code=exit_code, reason=reason or ("Completed" if exit_code == 0 else "Error"), message=message, finished=NOW)
    phase = "Succeeded" if exit_code == 0 else "Failed"
    return running_pod(child, **{"phase": phase, "terminated": end, **changes})


EVICTED = Disruption("EvictionByEvictionAPI", "Eviction API: evicting", NOW)


def world(state: JobStatus | None = None, *children: JobView, pods: tuple[PodView, ...] = (), **changes: Any) -> World:
    """A world at NOW; `changes` are fields of `World`, or `wanted` for the spec."""
    job = changes.pop("job", None) or training_job(state, wanted=changes.pop("wanted", None))
    return World(**{"job": job, "now": NOW, "settings": SETTINGS, "children": children, "pods": pods, "run": job.status.run, **changes})


def train_report(**fields: Any) -> str:
    said = {"stage": "train", "reason": "Trained", "epoch": 3, "epochs": 3, "metrics": {"train_loss": 0.2, "val_loss": 0.3, "val_gap": 0.1}}
    return json.dumps({**said, **fields})


def passed_report(**fields: Any) -> str:
    said = {"stage": "verify", "verdict": "Passed", "sha256": SHA, "modelName": "team.digits", "modelVersion": "1"}
    return json.dumps({**said, **fields})


def rejected_report(**fields: Any) -> str:
    said = {"stage": "verify", "verdict": "Failed", "failed": ["no_random_ops"], "message": "aten.dropout at head"}
    return json.dumps({**said, **fields})


@dataclass
class Simulation:
    """One job's cluster and MLflow, without a clock: time passes and pods do things when a step says so."""

    wanted: JobSpec = field(default_factory=spec)
    state: JobStatus = field(default_factory=JobStatus)
    now: datetime = NOW
    jobs: dict[tuple[str, str], JobView] = field(default_factory=dict)
    pods: dict[str, PodView] = field(default_factory=dict)
    runs: list[RunStatus] = field(default_factory=list)
    run_states: list[str] = field(default_factory=list)
    source: SourceRun = SOURCE
    """What MLflow says of the run of `spec.from`, or of the one with the weights."""
    created: list[tuple[str, str]] = field(default_factory=list)
    """Every Job that was ever made."""
    writes: int = 0
    gone: bool = False
    mlflow_away: bool = False

    def world(self) -> World:
        """What the operator's observer would read."""
        job = training_job(self.state, wanted=self.wanted)
        trained = statuses.holds(self.state, Condition.TRAINED)
        if self.state.phase.terminal and statuses.holds(self.state, Condition.RUN_CLOSED):
            return World(job=job, now=self.now, settings=SETTINGS, run=self.state.run)
        stages = {Stage.TRAIN, Stage.VERIFY} if trained else {Stage.TRAIN}
        children = tuple(child for child in self.jobs.values() if child.stage in stages)
        pods = tuple(item for item in self.pods.values() if (item.namespace == SETTINGS.namespace) == trained)
        return World(job=job, now=self.now, settings=SETTINGS, children=children, pods=pods, run=self.state.run)

    def reconcile(self, cut: int | None = None) -> list[Action]:
        """Plans and acts as the controller does; dies after `cut` actions. Gives the actions done."""
        done: list[Action] = []
        seen = self.world()
        for _ in range(4):
            for action in plan(seen).actions:
                if cut is not None and len(done) >= cut:
                    return done
                seen = self._perform(action, seen)
                done.append(action)
                if isinstance(action, EnsureRun | FindSource | FindWeights):
                    break
            else:
                return done
        raise AssertionError(f"planning does not settle: {done}")

    def _perform(self, action: Action, seen: World) -> World:
        match action:
            case EnsureRun():
                if self.mlflow_away:
                    return replace(seen, tracking_problem="away")
                if not self.runs:
                    self.runs.append(RUN)
                return replace(seen, run=self.runs[0])
            case FindSource():
                return replace(seen, **({"tracking_problem": "away"} if self.mlflow_away else {"source": self.source}))
            case FindWeights():
                return replace(seen, **({"tracking_problem": "away"} if self.mlflow_away else {"weights": self.source}))
            case WriteStatus(new):
                self.state, self.writes = new, self.writes + 1
                return replace(seen, job=replace(seen.job, status=new))
            case CreateJob(body):
                self.writes += 1
                self._create(body)
            case DeleteJob(namespace, name, uid):
                child = self.jobs.get((namespace, name))
                if child is not None and child.uid == uid:
                    self.jobs[namespace, name] = replace(child, deleting=True)
            case MarkRun(_, marked):
                self.run_states.append(marked)
            case EndRun(_, ended):
                self.run_states.append(ended)
            case DeleteTrainingJob():
                self.gone = True
            case EmitEvent() | CreateService():
                pass
        return seen

    def _create(self, body: dict[str, Any]) -> None:
        meta = body["metadata"]
        place = (meta["namespace"], meta["name"])
        if place in self.jobs:
            return
        self.created.append(place)
        owner = next((item["uid"] for item in meta.get("ownerReferences", [])), None)
        new = _job(*place, owner, meta["labels"][Label.STAGE])
        self.jobs[place] = replace(new, uid=f"uid-{len(self.created)}", created=self.now)

    def live(self, stage: Stage) -> list[JobView]:
        return [child for child in self.jobs.values() if child.stage == stage and not child.finished]

    # What the rest of the cluster does.

    def time_passes(self, seconds: float = 60.0) -> None:
        self.now += timedelta(seconds=seconds)

    def pod_appears(self, stage: Stage = Stage.TRAIN) -> None:
        for child in self.live(stage):
            if not child.deleting:
                self.pods.setdefault(child.uid, pod(child, created=self.now, scheduled=self.now))

    def pod_starts(self, stage: Stage = Stage.TRAIN) -> None:
        for child in self.live(stage):
            if not child.deleting:
                self.pods[child.uid] = running_pod(child, created=self.now, started=self.now)

    def pod_ends(self, stage: Stage = Stage.TRAIN, exit_code: int = 0, message: str = "") -> None:
        for child in self.live(stage):
            if child.uid in self.pods and not child.deleting:
                before = self.pods[child.uid]
                ending = Terminated(exit_code, "Error" if exit_code else "Completed", message, self.now)
                phase = "Failed" if exit_code else "Succeeded"
                self.pods[child.uid] = replace(before, phase=phase, started=before.started or self.now, terminated=ending)
                why = "PodFailurePolicy" if before.disruption else "BackoffLimitExceeded"
                ended = {"complete": True} if exit_code == 0 else {"failed": True, "reason": why}
                self.jobs[child.namespace, child.name] = replace(child, **ended)

    def pod_is_evicted(self) -> None:
        """As the Eviction API does: a condition, and a deletion that the training may see through to its end."""
        for uid, seen in self.pods.items():
            if seen.terminated is None and seen.namespace == REF.namespace:
                self.pods[uid] = replace(seen, deleted=self.now, disruption=replace(EVICTED, since=self.now))

    def pod_is_deleted(self) -> None:
        for uid, seen in self.pods.items():
            if seen.terminated is None and seen.namespace == REF.namespace:
                self.pods[uid] = replace(seen, deleted=self.now)

    def eviction_is_taken_back(self) -> None:
        for uid, seen in self.pods.items():
            self.pods[uid] = replace(seen, disruption=None)

    def garbage_is_collected(self) -> None:
        for place, child in list(self.jobs.items()):
            if child.deleting:
                del self.jobs[place]
                self.pods.pop(child.uid, None)

    def someone_deletes_the_job(self) -> None:
        for place, child in list(self.jobs.items()):
            if child.stage == Stage.TRAIN:
                self.jobs[place] = replace(child, deleting=True)

    def suspend(self, value: bool = True) -> None:
        self.wanted = self.wanted.model_copy(update={"suspend": value})

    @property
    def phase(self) -> Phase:
        return self.state.phase


def kinds(actions: Iterable[Action]) -> list[str]:
    """Names of the actions, in order."""
    return [type(action).__name__ for action in actions]


def written(actions: Iterable[Action]) -> JobStatus:
    """The status as the actions leave it."""
    return [action.status for action in actions if isinstance(action, WriteStatus)][-1]


def told(actions: Iterable[Action]) -> list[str]:
    """Reasons of the Events."""
    return [action.reason for action in actions if isinstance(action, EmitEvent)]


def condition(state: JobStatus, kind: str) -> str | None:
    return next((item.status for item in state.conditions if item.type == kind), None)
