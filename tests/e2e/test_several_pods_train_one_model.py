"""Two pods train one model: they end as one when either is lost, and the next two go on where they were."""

import os
import signal

import pytest
from dropout_testing import cluster
from dropout_testing.cluster import Object, TrainingJob
from dropout_testing.mlflow_client import ClusterMlflow

EPOCHS = 40


def pods(job: TrainingJob) -> list[Object]:
    found = cluster.items("pods", job.namespace, f"training.dropout.dev/job-name={job.name},training.dropout.dev/stage=train")
    return sorted(found, key=lambda pod: pod["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"])


@pytest.mark.parametrize("victim", [1])
def test_a_killed_pod_ends_the_other_and_both_go_on(namespace: str, mlflow: ClusterMlflow, victim: int) -> None:
    job = cluster.apply_sample("digits-cnn-two-nodes", namespace, lambda job: job["spec"]["training"].update(epochs=EPOCHS))
    job.reaches("Running")
    cluster.eventually("three epochs", lambda: job.status.get("progress", {}).get("epoch", 0) >= 3, 180)
    first = pods(job)
    assert len(first) == 2
    for process in cluster.training_processes(first[victim]["metadata"]["uid"]):
        os.kill(process, signal.SIGKILL)
    cluster.eventually("a second attempt", lambda: len(job.status["attempts"]) == 2, 120)
    status = job.reaches("Succeeded", seconds=500)

    assert [attempt["reason"] for attempt in status["attempts"]] == ["Killed", "Completed"]
    assert not {pod["metadata"]["uid"] for pod in first} & {pod["metadata"]["uid"] for pod in pods(job)}
    run = status["run"]["id"]
    assert [step for step, _ in mlflow.history(run, "val_loss")] == list(range(1, EPOCHS + 1))
    raw = job.raw()
    assert raw is not None
    assert [item["info"]["run_id"] for item in mlflow.runs_of(raw["metadata"]["uid"])] == [run]
    assert status["progress"]["metrics"]["test_accuracy"] >= 0.95
    told = {event["reason"]: event["message"] for event in job.events()}
    assert {"Killed", "Restarted", "Trained", "ModelRegistered"} <= told.keys()
    assert told["Restarted"] == "attempt 2, after Killed: training goes on from its last checkpoint"
