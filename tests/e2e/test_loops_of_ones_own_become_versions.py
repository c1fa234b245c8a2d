"""Programs that train as they like, in plain PyTorch, with Lightning, with Hugging Face's Trainer, end as the built-in models do: with the
plan applied, every epoch in the run, judged and registered. A program that fails says so in the job's words."""


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


@pytest.mark.parametrize(("name", "place", "kind"), [
    ("plain", "0/Spatial", "Insert"), ("lightning", "layers.6", "Set"), ("hugging-face", "vit.embeddings.dropout", "Set"),
])
def test_from_a_manifest_to_a_version(name: str, place: str, kind: str, namespace: str, mlflow: ClusterMlflow) -> None:
    job = start(name, namespace)
    status = job.reaches("Succeeded", seconds=400)
    assert status["gate"]["verdict"] == "Passed"
    (version,) = mlflow.versions(f"{namespace}.{name}")
    assert version["version"] == status["model"]["version"]
    run = status["run"]["id"]
    raw = job.raw()
    assert raw is not None
    assert len(mlflow.runs_of(raw["metadata"]["uid"])) == 1
    params = mlflow.params(run)
    assert params[f"dropout.{place}.action"] == kind
    epochs = [step for step, _ in mlflow.history(run, "val_gap")]
    assert epochs == list(range(1, 13))
    assert status["progress"]["epoch"] == 12
    assert status["progress"]["metrics"]["test_accuracy"] >= 0.9


def test_a_program_that_raises_is_told_in_one_line(namespace: str) -> None:
    program = "from dropout_trainer.loop import start; start(); raise ValueError('no such digit')"
    job = start("plain", namespace, command=["python", "-c", program], restart={"maxRestarts": 0})
    status = job.reaches("Failed")
    assert "ValueError: no such digit" in status["message"]


def test_a_program_that_exports_nothing_is_told_to(namespace: str) -> None:
    job = start("plain", namespace, command=["true"], restart={"maxRestarts": 0})
    assert "call job.export" in job.reaches("Failed")["message"]
