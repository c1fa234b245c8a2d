"""Suspending stops the pod, resuming starts over and says so, deleting leaves nothing behind."""

import pytest
from dropout_testing import cluster
from dropout_testing.mlflow_client import ClusterMlflow


def test_suspend_and_resume(namespace: str, mlflow: ClusterMlflow) -> None:
    job = cluster.apply_sample("breast-cancer-mlp", namespace, lambda job: job["spec"]["training"].update(epochs=400))
    job.reaches("Running")
    cluster.kubectl("patch", "dtj", job.name, "-n", namespace, "--type=merge", "-p", '{"spec":{"suspend":true}}')
    status = job.reaches("Suspended")
    cluster.eventually("its pod to be gone", lambda: job.train_pod() is None, 90)
    assert mlflow.state(status["run"]["id"]) == "SCHEDULED"
    cluster.kubectl("patch", "dtj", job.name, "-n", namespace, "--type=merge", "-p", '{"spec":{"suspend":false}}')
    after = job.reaches("Succeeded", seconds=400)
    assert [attempt["number"] for attempt in after["attempts"]] == [1, 2]
    assert after["attempts"][0]["reason"] == "Suspended"
    assert after["run"]["id"] == status["run"]["id"]
    assert after["restarts"] == 1
    assert any("starts over" in event["message"] for event in job.events())


def test_deleting_a_job_under_way(namespace: str, mlflow: ClusterMlflow) -> None:
    job = cluster.apply_sample("digits-cnn", namespace, lambda job: job["spec"]["training"].update(epochs=2000))
    run = job.reaches("Running")["run"]["id"]
    cluster.kubectl("delete", "dtj", job.name, "-n", namespace)
    cluster.eventually("the run to be KILLED", lambda: mlflow.state(run) == "KILLED", 60)
    cluster.eventually("its pod to be gone", lambda: job.train_pod() is None, 90)
    cluster.eventually("its Secret to be gone", lambda: not cluster.items("secrets", namespace, "training.dropout.dev/job-uid"), 90)


def test_a_job_whose_time_is_over_deletes_itself(namespace: str) -> None:
    def change(job: cluster.Object) -> None:
        job["spec"]["model"]["args"] = {"hiden": [8]}
        job["spec"]["ttlSecondsAfterFinished"] = {"failed": 1}

    job = cluster.apply_sample("breast-cancer-mlp", namespace, change)
    cluster.eventually("the job to be gone", lambda: job.raw() is None, 60)


@pytest.mark.alone
def test_the_operator_may_die_at_work(namespace: str, mlflow: ClusterMlflow) -> None:
    job = cluster.apply_sample("breast-cancer-mlp", namespace)
    job.reaches("Starting", "Running")
    cluster.kubectl("delete", "pod", "-n", cluster.OPERATOR_NAMESPACE, "-l", cluster.OPERATOR_SELECTOR, "--grace-period=0", "--force")
    status = job.reaches("Succeeded", seconds=400)
    raw = job.raw()
    assert raw is not None
    assert len(mlflow.runs_of(raw["metadata"]["uid"])) == 1
    assert len(mlflow.versions(status["model"]["name"])) == 1
    assert len(status["attempts"]) == 1
