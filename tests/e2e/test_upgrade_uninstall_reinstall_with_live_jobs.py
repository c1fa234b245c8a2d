"""The chart may be upgraded, taken away and brought back while jobs run; credentials, runs and models stay."""

import pytest
from dropout_testing import cluster
from dropout_testing.mlflow_client import ClusterMlflow

pytestmark = pytest.mark.alone


def long_job(namespace: str, name: str) -> cluster.TrainingJob:
    return cluster.apply_sample("breast-cancer-mlp", namespace, lambda job: job["spec"]["training"].update(epochs=600), name)


def test_upgrade_with_a_live_job(namespace: str, mlflow: ClusterMlflow) -> None:
    job = long_job(namespace, "upgraded")
    job.reaches("Running")
    before = cluster.secret(cluster.MLFLOW_ADMIN_SECRET, cluster.OPERATOR_NAMESPACE)
    cluster.install("--set-string", "operator.podAnnotations.upgraded=yes")
    assert cluster.secret(cluster.MLFLOW_ADMIN_SECRET, cluster.OPERATOR_NAMESPACE) == before
    status = job.reaches("Succeeded", seconds=400)
    assert len(mlflow.versions(status["model"]["name"])) == 1


def test_uninstall_and_reinstall_with_a_live_job(namespace: str, mlflow: ClusterMlflow) -> None:
    job = long_job(namespace, "orphaned")
    job.reaches("Running")
    before = cluster.secret(cluster.MLFLOW_ADMIN_SECRET, cluster.OPERATOR_NAMESPACE)
    cluster.run("helm", "uninstall", cluster.RELEASE, "-n", cluster.OPERATOR_NAMESPACE, "--wait")
    assert job.raw() is not None, "the CRD and its jobs stay"
    other = cluster.new_namespace("gone")
    cluster.apply_sample("breast-cancer-mlp", other)
    cluster.kubectl("delete", "namespace", other, "--timeout=60s")  # nothing of ours may hold it
    cluster.install()
    assert cluster.secret(cluster.MLFLOW_ADMIN_SECRET, cluster.OPERATOR_NAMESPACE) == before
    status = job.reaches("Succeeded", seconds=400)
    again = ClusterMlflow.of_cluster()
    assert again.state(status["run"]["id"]) == "FINISHED"
    assert len(again.versions(status["model"]["name"])) == 1
