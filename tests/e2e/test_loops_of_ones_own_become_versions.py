"""Programs that train as they like, in plain PyTorch, with Lightning, with Hugging Face's Trainer, end as the built-in models do: with the
plan applied, every epoch in the run, judged and registered, though their pod is deleted on the way. A program that fails says so in the
job's words."""

import pytest
import yaml
from dropout_testing import cluster
from dropout_testing.mlflow_client import ClusterMlflow

EXAMPLES = cluster.ROOT / "examples/own-loop"


def start(name: str, namespace: str, **spec: object) -> cluster.TrainingJob:
    job = yaml.safe_load((EXAMPLES / f"{name}.yaml").read_text())
    job["spec"] |= spec
    cluster.kubectl("apply", "-n", namespace, "-f", "-", stdin=yaml.safe_dump(job))
    return cluster.TrainingJob(namespace, name)


@pytest.mark.parametrize(("name", "epochs", "place", "kind"), [
    ("plain", 200, "0/Spatial", "Insert"), ("lightning", 60, "layers.6", "Set"), ("hugging-face", 30, "vit.embeddings.dropout", "Set"),
])
def test_from_a_manifest_to_a_version(name: str, epochs: int, place: str, kind: str, namespace: str, mlflow: ClusterMlflow) -> None:
    """With so many epochs that it is still training when its pod is deleted."""
    claim = cluster.volume_claim(namespace, "checkpoints")
    job = start(name, namespace, training={"epochs": epochs}, checkpoint={"volumeClaim": claim}, restart={"maxRestarts": 0})
    job.reaches("Running")
    cluster.eventually("two epochs", lambda: job.status.get("progress", {}).get("epoch", 0) >= 2, 120, pause=0.2)
    job.delete_pod()
    status = job.reaches("Succeeded", seconds=400)
    assert [attempt["reason"] for attempt in status["attempts"]] == ["PodDeleted", "Completed"]
    assert any("training goes on from its last checkpoint" in event["message"] for event in job.events())
    assert status["gate"]["verdict"] == "Passed"
    (version,) = mlflow.versions(f"{namespace}.{name}")
    assert version["version"] == status["model"]["version"]
    run = status["run"]["id"]
    raw = job.raw()
    assert raw is not None
    assert len(mlflow.runs_of(raw["metadata"]["uid"])) == 1
    params = mlflow.params(run)
    assert params[f"dropout.{place}.action"] == kind
    assert [step for step, _ in mlflow.history(run, "val_gap")] == list(range(1, epochs + 1))
    assert status["progress"]["epoch"] == epochs
    assert status["progress"]["metrics"]["test_accuracy"] >= 0.9


def test_a_program_that_raises_is_told_in_one_line(namespace: str) -> None:
    program = "from dropout_trainer.loop import start; start(); raise ValueError('no such digit')"
    job = start("plain", namespace, command=["python", "-c", program], restart={"maxRestarts": 0})
    status = job.reaches("Failed")
    assert "ValueError: no such digit" in status["message"]


def test_a_program_that_exports_nothing_is_told_to(namespace: str) -> None:
    job = start("plain", namespace, command=["true"], restart={"maxRestarts": 0})
    assert "call job.export" in job.reaches("Failed")["message"]
