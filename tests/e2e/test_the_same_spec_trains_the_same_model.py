"""Reproducibility in pods: one spec applied twice gives one curve and one set of bytes; another seed gives others."""

import json

from dropout_testing import cluster
from dropout_testing.mlflow_client import ClusterMlflow

CURVE = ("train_loss", "train_loss_with_dropout", "val_loss", "val_accuracy", "val_gap")


def outcome(mlflow: ClusterMlflow, job: cluster.TrainingJob) -> tuple[list[list[tuple[int, float]]], dict[str, str]]:
    """Curve and SHA-256 of the candidate's files."""
    run = job.reaches("Succeeded")["run"]["id"]
    files = json.loads(mlflow.artifact(run, "candidate/manifest.json"))["files"]
    return [mlflow.history(run, name) for name in CURVE], {name: file["sha256"] for name, file in files.items()}


def test_two_pods_one_curve_one_model(namespace: str, mlflow: ClusterMlflow) -> None:
    def short(job: cluster.Object) -> None:
        job["spec"]["training"]["epochs"] = 5
        del job["spec"]["gate"]

    def other_seed(job: cluster.Object) -> None:
        short(job)
        job["spec"]["seed"] = 43

    jobs = [cluster.apply_sample("digits-cnn", namespace, change, name) for change, name in (
        (short, "first"), (short, "second"), (other_seed, "third"))]  # at the same time, on the same two cores
    (curve, files), (curve_again, files_again), (other_curve, other_files) = (outcome(mlflow, job) for job in jobs)
    assert len(curve[0]) == 5
    assert curve == curve_again
    assert files["weights.safetensors"] == files_again["weights.safetensors"]
    assert files["eval.pt2"] == files_again["eval.pt2"]
    assert curve != other_curve
    assert files["weights.safetensors"] != other_files["weights.safetensors"]
