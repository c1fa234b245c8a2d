"""A pod that is evicted, deleted or killed in the middle of a training ends in a model all the same, under one run."""

import json
import os
import signal
from collections.abc import Callable

import pytest
from dropout_testing import cluster
from dropout_testing.cluster import Object, TrainingJob
from dropout_testing.mlflow_client import ClusterMlflow

EPOCHS = 60


def with_checkpoints(namespace: str, **fields: Object) -> TrainingJob:
    """A job that is far enough to have saved a checkpoint, and far from its end."""
    claim = cluster.volume_claim(namespace, "checkpoints")

    def change(job: Object) -> None:
        job["spec"]["training"]["epochs"] = EPOCHS
        job["spec"] |= {"checkpoint": {"volumeClaim": claim}, **fields}

    job = cluster.apply_sample("digits-cnn", namespace, change)
    job.reaches("Running")
    cluster.eventually("three epochs", lambda: job.status.get("progress", {}).get("epoch", 0) >= 3, 120)
    return job


def evict(job: TrainingJob) -> None:
    pod = job.train_pod()
    assert pod is not None
    name = pod["metadata"]["name"]
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": job.namespace}}
    cluster.kubectl("create", "--raw", f"/api/v1/namespaces/{job.namespace}/pods/{name}/eviction", "-f", "-", stdin=json.dumps(body))


def kill(job: TrainingJob) -> None:
    """SIGKILL to the training's processes, as they are seen from this machine."""
    pod = job.train_pod()
    assert pod is not None
    found = cluster.training_processes(pod["metadata"]["uid"])
    assert found
    for process in found:
        os.kill(process, signal.SIGKILL)


@pytest.mark.parametrize(("disturb", "reason", "counts"), [
    (evict, "EvictionByEvictionAPI", False), (TrainingJob.delete_pod, "PodDeleted", False), (kill, "Killed", True),
])
def test_a_training_that_is_cut_off_goes_on_and_becomes_a_version(
    disturb: Callable[[TrainingJob], None], reason: str, counts: bool, namespace: str, mlflow: ClusterMlflow,
) -> None:
    job = with_checkpoints(namespace, restart={"maxRestarts": 1 if counts else 0})
    run = job.status["run"]["id"]
    disturb(job)
    cluster.eventually("a second attempt", lambda: len(job.status["attempts"]) == 2, 120)
    assert mlflow.state(run) == "RUNNING"
    status = job.reaches("Succeeded", seconds=400)

    first, second = status["attempts"]
    assert (first["reason"], first.get("disruption")) == (reason, None if counts else reason)
    assert (second["reason"], status["restarts"]) == ("Completed", 1)
    assert all({"startTime", "endTime"} <= attempt.keys() for attempt in (first, second))
    raw = job.raw()
    assert raw is not None
    assert [item["info"]["run_id"] for item in mlflow.runs_of(raw["metadata"]["uid"])] == [run]
    assert [step for step, _ in mlflow.history(run, "val_loss")] == list(range(1, status["progress"]["epoch"] + 1))
    told = {event["reason"]: event["message"] for event in job.events()}
    assert {reason, "Restarted", "Trained", "ModelRegistered"} <= told.keys()
    assert told["Restarted"] == f"attempt 2, after {reason}: training goes on from its last checkpoint"


def test_a_training_without_checkpoints_starts_over(namespace: str, mlflow: ClusterMlflow) -> None:
    job = cluster.apply_sample("breast-cancer-mlp", namespace, lambda job: job["spec"]["training"].update(epochs=400))
    job.reaches("Running")
    evict(job)
    status = job.reaches("Succeeded", seconds=400)

    assert [attempt["reason"] for attempt in status["attempts"]] == ["EvictionByEvictionAPI", "Completed"]
    assert any("starts over from the first epoch" in event["message"] for event in job.events())
