"""Every sample ends as it says: trained, judged, registered, with its numbers in MLflow and Prometheus."""

import json
from pathlib import Path

import pytest
from dropout_testing import cluster
from dropout_testing.mlflow_client import ClusterMlflow
from dropout_testing.processes import running
from dropout_testing.prometheus import Prometheus


def assert_registered(job: cluster.TrainingJob, mlflow: ClusterMlflow) -> cluster.Object:
    """What holds for every job that succeeded. Gives the status."""
    status = job.status
    raw = job.raw()
    assert raw is not None
    assert len(mlflow.runs_of(raw["metadata"]["uid"])) == 1
    assert mlflow.state(status["run"]["id"]) == "FINISHED"
    versions = mlflow.versions(status["model"]["name"])
    assert [version["version"] for version in versions] == [status["model"]["version"]]
    tags = {tag["key"]: tag["value"] for tag in versions[0]["tags"]}
    assert tags["dropout.sha256"] == status["artifact"]["sha256"]
    assert tags["dropout.verdict"] == "Passed"
    assert job.condition("Complete")["status"] == "True"
    assert status["gate"]["verdict"] == "Passed"
    return status


def test_digits_cnn_from_manifest_to_version(namespace: str, mlflow: ClusterMlflow, metrics: Prometheus, tmp_path: Path) -> None:
    told = tmp_path / "watch"
    watching = ["kubectl", "get", "dtj", "-n", namespace, "-w", "--no-headers", "-o", "custom-columns=PHASE:.status.phase"]
    with running(watching, told):
        status = assert_digits_are_learnt(namespace, mlflow, metrics)
    phases = list(dict.fromkeys(told.read_text().split()))
    assert phases == [phase for phase in ("Pending", "Queued", "Starting", "Running", "Verifying", "Succeeded") if phase in phases]
    assert {"Pending", "Starting", "Running", "Verifying", "Succeeded"} <= set(phases)
    assert status["progress"]["metrics"]["test_accuracy"] >= 0.95


def assert_digits_are_learnt(namespace: str, mlflow: ClusterMlflow, metrics: Prometheus) -> cluster.Object:
    job = cluster.apply_sample("digits-cnn", namespace)
    job.reaches("Running", "Verifying", "Succeeded")
    query = f'dropout_val_gap{{pod_namespace="{namespace}"}}'
    gap = cluster.eventually("the trainer's gap in Prometheus", lambda: metrics.query(query), 60)
    assert gap[0][0]["pod"].startswith("digits-cnn-1-")
    job.reaches("Succeeded")
    status = assert_registered(job, mlflow)
    series = f'{{namespace="{namespace}",name="digits-cnn"}}'
    for name, metric in (("train_loss", "train_loss"), ("val_loss", "val_loss"), ("val_gap", "val_gap")):
        expected = status["progress"]["metrics"][metric]
        cluster.eventually(f"the final {name}", lambda: metrics.value(f"dropout_job_{name}{series}") == pytest.approx(expected), 30)  # noqa: B023
    return status


def test_the_run_holds_the_whole_plan_and_every_seed(namespace: str, mlflow: ClusterMlflow) -> None:
    job = cluster.apply_sample("breast-cancer-mlp", namespace)
    status = job.reaches("Succeeded")
    assert_registered(job, mlflow)
    run = status["run"]["id"]
    params = mlflow.params(run)
    assert [key for key in params if key.startswith("dropout.")]
    assert [key for key in params if key.startswith("seed")]
    epochs = [step for step, _ in mlflow.history(run, "val_gap")]
    assert epochs == list(range(1, len(epochs) + 1))
    losses = {name: dict(mlflow.history(run, name)) for name in ("train_loss", "val_loss", "val_gap")}
    for step in epochs:
        assert losses["val_gap"][step] == pytest.approx(losses["val_loss"][step] - losses["train_loss"][step], abs=1e-6)
    assert "candidate/eval.pt2" in mlflow.artifacts(run, "candidate")


def test_fashion_mnist_stops_early(namespace: str, mlflow: ClusterMlflow) -> None:
    claim = cluster.volume_with(namespace, "fashion-mnist", Path("/usr/share/datasets/fashion-mnist"))

    def smaller(job: cluster.Object) -> None:
        job["spec"]["data"]["args"]["limit"] = 10_000
        job["spec"]["training"]["epochs"] = 12
        job["spec"]["training"]["earlyStopping"] |= {"patience": 1, "minDelta": 0.05}
        assert job["spec"]["podTemplate"]["volumes"][0]["persistentVolumeClaim"]["claimName"] == claim

    job = cluster.apply_sample("fashion-mnist-cnn", namespace, smaller)
    status = job.reaches("Succeeded", seconds=500)
    assert_registered(job, mlflow)
    assert status["progress"]["epoch"] < 12
    assert status["progress"]["metrics"]["test_accuracy"] > 0.75


def test_gpu_digits_runs_where_a_gpu_is_advertised(namespace: str, mlflow: ClusterMlflow) -> None:
    job = cluster.apply_sample("gpu-digits", namespace)
    job.reaches("Queued", seconds=60)
    assert "nvidia.com/gpu" in job.status["message"]
    with cluster.advertised("nvidia.com/gpu", 1):
        status = job.reaches("Succeeded")
    assert_registered(job, mlflow)
    assert status["devices"] == {"nvidia.com/gpu": "1"}


def test_a_model_and_data_of_ones_own(namespace: str, mlflow: ClusterMlflow) -> None:
    job = cluster.apply_sample("own-model", namespace)
    status = job.reaches("Succeeded")
    assert_registered(job, mlflow)
    params = mlflow.params(status["run"]["id"])
    assert any("towers.0.2" in f"{key}={value}" for key, value in params.items())


def test_dropout_left_on_is_rejected_by_op_and_module(namespace: str, mlflow: ClusterMlflow) -> None:
    job = cluster.apply_sample("always-on-dropout", namespace)
    status = job.reaches("Rejected")
    assert "aten.dropout" in status["message"]
    assert "Careless" in status["message"]
    assert "self.training" in status["message"]
    assert mlflow.versions(f"{namespace}.always-on-dropout") == []
    assert "model" not in status
    run = status["run"]["id"]
    assert mlflow.state(run) == "FAILED"
    assert "gate/report.json" in mlflow.artifacts(run, "gate")
    assert "Rejected" in [event["reason"] for event in job.events()]
    assert json.dumps(job.condition("GatePassed")).count("False")


def test_verify_again_registers_what_an_impossible_bar_kept_out(namespace: str, mlflow: ClusterMlflow) -> None:
    def bar_too_high(job: cluster.Object) -> None:
        job["spec"]["gate"] = [{"metric": "accuracy", "min": 1.0}]

    first = cluster.apply_sample("digits-cnn", namespace, bar_too_high)
    run = first.reaches("Rejected")["run"]["id"]
    cluster.eventually("the first run's end", lambda: mlflow.state(run) == "FAILED", 60)

    def name_the_run(job: cluster.Object) -> None:
        job["spec"]["from"]["run"] = run

    again = cluster.apply_sample("verify-again", namespace, name_the_run)
    again.reaches("Succeeded")
    status = assert_registered(again, mlflow)
    assert not status.get("attempts")
    (version,) = mlflow.versions(f"{namespace}.digits-cnn")
    assert version["run_id"] == run != status["run"]["id"]
    assert status["imageID"] == first.status["imageID"]
