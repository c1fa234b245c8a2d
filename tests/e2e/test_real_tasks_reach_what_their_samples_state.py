"""Real tasks on real data: each sample trains as it stands, on a volume, and reaches at least what its gate asks for."""

import json
import os
from pathlib import Path

from dropout_testing import cluster
from dropout_testing.mlflow_client import ClusterMlflow

DATASETS = Path(os.environ.get("CACHE", str(Path.home() / ".cache/dropout-operator"))) / "data"
FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")


def trained(sample: str, namespace: str, claim: str, source: Path, seconds: float = 300) -> cluster.Object:
    """Status of the sample's job, which has succeeded."""
    cluster.volume_with(namespace, claim, source)
    job = cluster.apply_sample(sample, namespace)
    return job.reaches("Succeeded", seconds=seconds)


def test_credit_default_finds_defaulters_in_each_segment(namespace: str, mlflow: ClusterMlflow) -> None:
    status = trained("credit-default-mlp", namespace, "datasets", DATASETS)
    assert status["progress"]["metrics"]["test_roc_auc_macro"] >= 0.6
    run = status["run"]["id"]
    table = json.loads(mlflow.artifact(run, "test_by_class.json"))
    defaulters = dict(zip(table["columns"], table["data"][1], strict=True))
    assert (defaulters["class"], defaulters["recall"] >= 0.5) == ("1", True)
    assert len(json.loads(mlflow.artifact(run, "test_by_segment.json"))["data"]) >= 2


def test_a_second_job_is_held_against_the_champion(namespace: str, mlflow: ClusterMlflow) -> None:
    def never_better(job: cluster.Object) -> None:
        job["spec"]["export"]["model"] = "credit-default-mlp"
        job["spec"]["gate"] = [{"metric": "roc_auc_macro", "baseline": "champion", "min": 0.5}]

    trained("credit-default-mlp", namespace, "datasets", DATASETS)
    second = cluster.apply_sample("credit-default-mlp", namespace, never_better, "challenger")
    status = second.reaches("Rejected")
    assert "champion" in status["message"]
    assert len(mlflow.versions(f"{namespace}.credit-default-mlp")) == 1


def test_sunspots_are_forecast_with_an_interval(namespace: str) -> None:
    status = trained("sunspots-lstm", namespace, "datasets", DATASETS)
    metrics = status["progress"]["metrics"]
    assert metrics["test_mae"] <= 17
    assert metrics["test_interval_coverage"] >= 0.65


def test_reviews_are_told_apart(namespace: str) -> None:
    status = trained("reviews-transformer", namespace, "datasets", DATASETS)
    assert status["progress"]["metrics"]["test_accuracy"] >= 0.7


def test_a_residual_network_learns_fashion(namespace: str) -> None:
    status = trained("fashion-mnist-resnet", namespace, "fashion-mnist", FASHION_MNIST, 600)
    assert status["progress"]["metrics"]["test_accuracy"] >= 0.8


def test_fine_tuning_starts_from_the_champions_weights(namespace: str, mlflow: ClusterMlflow) -> None:
    def tune(job: cluster.Object) -> None:
        job["spec"]["model"]["weights"] = {"model": "digits-cnn", "alias": "champion"}
        job["spec"]["training"] |= {"epochs": 1, "freeze": ["features.*"]}

    first = cluster.apply_sample("digits-cnn", namespace).reaches("Succeeded")
    tuned = cluster.apply_sample("digits-cnn", namespace, tune, "tuned").reaches("Succeeded")
    assert mlflow.params(tuned["run"]["id"])["model.weights.from_run"] == first["run"]["id"]
    assert tuned["progress"]["metrics"]["test_accuracy"] >= 0.95  # one epoch alone reaches some 0.85
