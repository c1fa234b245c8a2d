"""SIGKILL before and after each side effect, enumerated from the operator's own actions.

Every kill point is a job of its own, and all live at once: each is also hit by the kills of all the others. A life goes from
creation over suspension and resumption to registration, then the job deletes itself, so that every action occurs in it. Some
lives train; others verify again what was trained before.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import pytest
from dropout_testing import jobs
from dropout_testing.control_plane import ControlPlane
from dropout_testing.jobs import PASSED, SYSTEM, TRAINED, Job, Witness
from dropout_testing.mlflow_server import MlflowServer
from dropout_testing.operators import OperatorProcess, operating
from dropout_testing.processes import wait_until

from dropout_operator.actions import Action

NAMESPACE = "killed"
OCCURRENCES = {"WriteStatus": 5, "EmitEvent": 2, "CreateJob": 3}
"""How often at least an action occurs in a life; others once. (MarkRun is best effort: a kill just before it skips it.)"""
AGAIN = {"FindSource": 2, "EnsureRun": 1, "WriteStatus": 5, "CreateJob": 2, "DeleteJob": 1}
"""The same of a life that trains nothing, for the actions that are planned otherwise there."""
NAMES = [action.__name__ for action in get_args(Action) if action.__name__ != "FindWeights"]
"""All but one, which no life here has: it reads as FindSource does, and writes nothing."""


def points(occurrences: dict[str, int], end: str = "") -> list[str]:
    numbered = [f"{name.lower()}-{{}}-{number}{end}" for name, count in occurrences.items() for number in range(1, count + 1)]
    return [point.format(side) for point in numbered for side in ("before", "after")]


TRAIN_POINTS = points({name: OCCURRENCES.get(name, 1) for name in NAMES if name != "FindSource"})
AGAIN_POINTS = points(AGAIN, "-again")
POINTS = TRAIN_POINTS + AGAIN_POINTS
MINUTES = 8


@dataclass
class Life:
    """One job, the kubelet of its pods, its user, and what was seen of it."""

    job: Job
    uid: str
    phases: list[str] = field(default_factory=list)
    suspended: bool = False
    resumed: bool = False
    status: dict[str, Any] = field(default_factory=dict)
    over: bool = False

    @property
    def trains(self) -> bool:
        return self.job.name in TRAIN_POINTS

    def goes_on(self, pods: list[dict[str, Any]], raw: dict[str, Any] | None) -> None:
        """Plays kubelet and user as far as they can now."""
        if raw is None:
            self.over = True
            return
        self.status = raw.get("status", {})
        self.phases.append(self.status.get("phase", ""))
        for pod in pods:
            stage, phase = pod["metadata"]["labels"]["training.dropout.dev/stage"], pod["status"].get("phase", "Pending")
            if phase == "Pending":
                jobs.start(self.job.plane, pod)
            elif phase == "Running" and stage == "verify" and (self.trains or self.resumed):
                jobs.end(self.job.plane, pod, message=PASSED)
            elif phase == "Running" and self.resumed and self.phases[-1] == "Running":
                jobs.end(self.job.plane, pod, message=TRAINED)
        works = self.phases[-1] == "Running" if self.trains else self.phases[-1] == "Verifying" and bool(pods)
        if works and not self.suspended:
            self.job.change(suspend=True)
            self.suspended = True
        elif self.phases[-1] == "Suspended" and not self.resumed and (self.trains or not pods):
            self.job.change(suspend=False)
            self.resumed = True


def play(plane: ControlPlane, lives: list[Life]) -> None:
    """One round over all lives, with two requests to see them all."""
    raws = {raw["metadata"]["uid"]: raw for raw in plane.request("GET", jobs.collection(NAMESPACE))["items"]}
    pods = [pod for space in (NAMESPACE, SYSTEM) for pod in plane.request("GET", f"/api/v1/namespaces/{space}/pods")["items"]]
    for life in lives:
        if not life.over:
            mine = [pod for pod in pods if pod["metadata"]["labels"].get("training.dropout.dev/job-uid") == life.uid]
            life.goes_on([pod for pod in mine if "deletionTimestamp" not in pod["metadata"]], raws.get(life.uid))


@dataclass(frozen=True)
class Aftermath:
    lives: dict[str, Life]
    witness: Witness
    folder: Path
    mlflow: MlflowServer


@pytest.fixture(scope="module")
def aftermath(plane: ControlPlane, mlflow: MlflowServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aftermath]:
    """All lives, lived to their end under an operator that is killed at every point."""
    plane.request("POST", "/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
    folder = tmp_path_factory.mktemp("killed")
    killed = {"KILL_FOLDER": str(folder), "DROPOUT_RESYNC_SECONDS": "20"}
    operator = OperatorProcess(plane, mlflow, folder, module="dropout_testing.killable_operator", environment=killed)
    with Witness(plane) as witness, operating(operator):
        ttl = {"succeeded": 20, "failed": 100_000, "rejected": 100_000}
        made = [jobs.create(plane, NAMESPACE, point, ttlSecondsAfterFinished=ttl, nodes=nodes_of(point)) for point in TRAIN_POINTS]
        again: dict[str, Any] = {"from": {"run": candidate(mlflow)}, "model": None, "data": None}
        made += [jobs.create(plane, NAMESPACE, point, ttlSecondsAfterFinished=ttl, **again) for point in AGAIN_POINTS]
        lives = [Life(job, job.uid) for job in made]
        wait_until("every life to end", lambda: tick(plane, lives), MINUTES * 60)
        wait_until("the verify Jobs to be swept", lambda: not left(plane), 120)
        yield Aftermath({life.job.name: life for life in lives}, witness, folder, mlflow)


def nodes_of(point: str) -> int:
    """Only the pods of several nodes are given names."""
    return 2 if point.startswith("createservice") else 1


def candidate(mlflow: MlflowServer) -> str:
    """Id of a run of the namespace that has ended."""
    experiment = mlflow.request("POST", "2.0/mlflow/experiments/create", {"name": f"{NAMESPACE}.before"})["experiment_id"]
    tags = [{"key": "dropout.namespace", "value": NAMESPACE}]
    run: str = mlflow.request("POST", "2.0/mlflow/runs/create", {"experiment_id": experiment, "tags": tags})["run"]["info"]["run_id"]
    mlflow.request("POST", "2.0/mlflow/runs/update", {"run_id": run, "status": "FINISHED"})
    return run


def tick(plane: ControlPlane, lives: list[Life]) -> bool:
    play(plane, lives)
    failed = [life.job.name for life in lives if life.phases and life.phases[-1] in ("Failed", "Rejected")]
    assert not failed, {life.job.name: life.status for life in lives if life.job.name in failed}
    return all(life.over for life in lives)


def left(plane: ControlPlane) -> list[str]:
    found = plane.request("GET", f"/apis/batch/v1/namespaces/{SYSTEM}/jobs")["items"]
    return [job["metadata"]["name"] for job in found if job["metadata"]["labels"]["training.dropout.dev/job-namespace"] == NAMESPACE]


@pytest.mark.timeout(900)
def test_every_action_was_a_kill_point(aftermath: Aftermath) -> None:
    assert {point.split("-")[0] for point in POINTS} == {name.lower() for name in NAMES}
    assert [point for point in POINTS if not (aftermath.folder / point).exists()] == []


@pytest.mark.timeout(900)
@pytest.mark.parametrize("point", TRAIN_POINTS)
def test_one_run_one_train_job_for_each_attempt_one_verify_job(point: str, aftermath: Aftermath) -> None:
    life, witness = aftermath.lives[point], aftermath.witness

    assert [(attempt["number"], attempt["reason"]) for attempt in life.status["attempts"]] == [(1, "Suspended"), (2, "Completed")]
    assert (witness.count(NAMESPACE, f"{point}-1"), witness.count(NAMESPACE, f"{point}-2")) == (1, 1)
    assert witness.count(NAMESPACE, f"{point}-3") == 0
    assert witness.count(SYSTEM, f"verify-{life.uid}") == 1
    (run,) = aftermath.mlflow.runs_of(life.uid)
    assert run["info"]["status"] == "FINISHED"
    assert life.phases[-1] == "Succeeded"


@pytest.mark.timeout(900)
@pytest.mark.parametrize("point", AGAIN_POINTS)
def test_one_run_and_no_train_job_where_a_candidate_is_verified_again(point: str, aftermath: Aftermath) -> None:
    life, witness = aftermath.lives[point], aftermath.witness

    assert (life.status.get("attempts", []), witness.count(NAMESPACE, f"{point}-1")) == ([], 0)
    assert witness.count(SYSTEM, f"verify-{life.uid}") == 2  # one before it was suspended, one after
    (run,) = aftermath.mlflow.runs_of(life.uid)
    assert run["info"]["status"] == "FINISHED"
    assert life.phases[-1] == "Succeeded"


@pytest.mark.timeout(900)
def test_no_life_lost_its_run_or_went_back(aftermath: Aftermath) -> None:
    training = ["Queued", "Starting", "Running", "Suspended", "Queued", "Starting", "Running", "Verifying"]
    for life in aftermath.lives.values():
        rest = iter(["Pending", *(training if life.trains else ["Verifying", "Suspended", "Verifying"]), "Succeeded"])
        steps = [phase for phase, before in zip(life.phases, ["", *life.phases], strict=False) if phase != before]
        assert all(phase in rest for phase in steps), f"{life.job.name}: {steps}"
