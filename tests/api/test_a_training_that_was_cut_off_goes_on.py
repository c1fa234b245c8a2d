"""Evictions, deletions and kills of a training's pod, as the API server and the Job controller tell them. The kubelet alone is played."""

import json
from typing import Any

import pytest
from dropout_testing.control_plane import ControlPlane
from dropout_testing.jobs import Job, create, now
from dropout_testing.mlflow_server import MlflowServer

pytestmark = pytest.mark.usefixtures("operator")
STRATEGIC = "application/strategic-merge-patch+json"
UNCOUNTED = {"restart": {"maxRestarts": 0}}


def begun(plane: ControlPlane, namespace: str, name: str, **spec: Any) -> tuple[Job, str]:
    """A job whose first attempt runs, and the path of its pod."""
    job = create(plane, namespace, name, **spec)
    return job, running(job)


def running(job: Job) -> str:
    job.pod_starts()
    job.reaches("Running")
    return f"/api/v1/namespaces/{job.namespace}/pods/{job.pods('train')[-1]['metadata']['name']}"


def processes_end(job: Job, pod: str, exit_code: int, message: str = "", **status: Any) -> None:
    """As the kubelet says that a pod's container ended, with the conditions left as others have set them; `status` is what it adds."""
    state = {"exitCode": exit_code, "reason": "Error", "startedAt": now(), "finishedAt": now(), "message": message}
    container = {"name": "train", "ready": False, "restartCount": 0, "image": "image", "imageID": "sha256:abc"}
    status |= {"phase": "Failed", "containerStatuses": [container | {"state": {"terminated": state, "running": None}}]}
    job.plane.request("PATCH", f"{pod}/status", {"status": status}, STRATEGIC)


def follows(job: Job, name: str) -> None:
    job.waits(f"Job {name}", lambda: [item["metadata"]["name"] for item in job.jobs("train")] == [name])


def ends(job: Job) -> list[tuple[str, str | None]]:
    return [(item.get("reason", ""), item.get("disruption")) for item in job.status["attempts"]]


def test_an_evicted_training_is_begun_again_and_that_does_not_count(plane: ControlPlane, mlflow: MlflowServer, namespace: str) -> None:
    job, pod = begun(plane, namespace, "evicted", **UNCOUNTED, checkpoint={"volumeClaim": "claim"})
    run = job.status["run"]["id"]
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod.rpartition("/")[2], "namespace": namespace}}
    plane.request("POST", f"{pod}/eviction", eviction)
    job.waits("the eviction in status", lambda: job.status["attempts"][0].get("disruption"))
    assert "is being ended" in job.status["message"]
    assert len(job.jobs("train")) == 1  # the pod's process has not ended

    processes_end(job, pod, 75, json.dumps({"stage": "train", "reason": "Preempted", "message": "checkpoint of epoch 3 saved"}))
    follows(job, "evicted-2")
    assert plane.get(pod) is None
    assert mlflow.runs_of(job.uid)[0]["info"]["status"] == "RUNNING"
    job.trains()
    job.is_verified()
    status = job.reaches("Succeeded")

    assert ends(job) == [("EvictionByEvictionAPI", "EvictionByEvictionAPI"), ("Completed", None)]
    assert (status["restarts"], status["run"]["id"], len(mlflow.runs_of(job.uid))) == (1, run, 1)
    assert {"EvictionByEvictionAPI", "Restarted"} <= set(job.events())


def test_a_deletion_by_someone_does_not_count_and_a_kill_does(plane: ControlPlane, namespace: str) -> None:
    job, pod = begun(plane, namespace, "deleted", **UNCOUNTED)
    plane.request("DELETE", pod)
    job.waits("the deletion in status", lambda: job.status["attempts"][0].get("disruption"))
    processes_end(job, pod, 143)
    follows(job, "deleted-2")

    processes_end(job, running(job), 137)
    status = job.reaches("Failed")

    assert ends(job) == [("PodDeleted", "PodDeleted"), ("Killed", None)]
    assert "spec.restart.maxRestarts" in status["failure"]["message"]


def test_a_kill_counts_whatever_the_pod_says_of_it(plane: ControlPlane, namespace: str) -> None:
    job, pod = begun(plane, namespace, "killed", restart={"maxRestarts": 1})
    processes_end(job, pod, 75, json.dumps({"stage": "train", "reason": "EvictionByEvictionAPI", "message": "by Kubernetes"}))
    follows(job, "killed-2")
    processes_end(job, running(job), 137)
    job.reaches("Failed")

    assert ends(job) == [("Preempted", None), ("Killed", None)]


def test_the_job_controller_keeps_the_word_of_a_disruption_that_the_operator_never_saw(plane: ControlPlane, namespace: str) -> None:
    job, pod = begun(plane, namespace, "unseen", **UNCOUNTED)
    condition = {"type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet", "lastTransitionTime": now()}
    processes_end(job, pod, 137, conditions=[condition])
    plane.request("DELETE", pod)
    follows(job, "unseen-2")

    assert ends(job)[0] in [(reason, reason) for reason in ("TerminationByKubelet", "DisruptionTarget")]
