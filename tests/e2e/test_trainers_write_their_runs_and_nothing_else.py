"""The trainer's MLflow identity, tried with the very credentials that its pod had."""

import pytest
from dropout_testing import cluster
from dropout_testing.mlflow_client import ClusterMlflow


@pytest.fixture(scope="module")
def trained(mlflow: ClusterMlflow) -> tuple[cluster.TrainingJob, ClusterMlflow]:
    """A job that was registered, and MLflow as its trainer."""
    namespace = cluster.new_namespace("trainer")
    job = cluster.apply_sample("breast-cancer-mlp", namespace)
    job.reaches("Succeeded")
    raw = job.raw()
    assert raw is not None
    login = cluster.secret(f"{job.name}-{raw['metadata']['uid'][:8]}-tracking", namespace)
    return job, mlflow.acting_as(login["username"], login["password"])


def test_it_may_write_its_own_run(trained: tuple[cluster.TrainingJob, ClusterMlflow]) -> None:
    job, trainer = trained
    run = job.status["run"]["id"]
    assert trainer.run(run)["info"]["run_id"] == run
    trainer.request("POST", "2.0/mlflow/runs/set-tag", {"run_id": run, "key": "note", "value": "mine"})


def test_it_may_not_create_a_model_a_version_or_an_alias(trained: tuple[cluster.TrainingJob, ClusterMlflow]) -> None:
    job, trainer = trained
    model, run = job.status["model"]["name"], job.status["run"]["id"]
    version = {"name": model, "source": f"runs:/{run}/candidate", "run_id": run}
    assert trainer.refuses("POST", "2.0/mlflow/registered-models/create", {"name": f"{job.namespace}.other"})
    assert trainer.refuses("POST", "2.0/mlflow/model-versions/create", version)
    assert trainer.refuses("POST", "2.0/mlflow/registered-models/alias", {"name": model, "alias": "champion", "version": "1"})
    assert trainer.refuses("POST", "2.0/mlflow/experiments/create", {"name": "someone-elses.digits"})


def test_it_may_not_touch_the_verified_copy(trained: tuple[cluster.TrainingJob, ClusterMlflow], mlflow: ClusterMlflow) -> None:
    job, trainer = trained
    (version,) = mlflow.versions(job.status["model"]["name"])
    copy = version["source"].removeprefix("models:/")
    assert mlflow.status("GET", f"2.0/mlflow/logged-models/{copy}") == 200
    assert trainer.refuses("GET", f"2.0/mlflow/logged-models/{copy}")
    assert trainer.refuses("PATCH", f"2.0/mlflow/logged-models/{copy}/tags", {"tags": [{"key": "dropout.verdict", "value": "mine"}]})
    kept = mlflow.request("GET", f"2.0/mlflow/logged-models/{copy}")["model"]["info"]["experiment_id"]
    assert trainer.refuses("POST", "2.0/mlflow/runs/create", {"experiment_id": kept})


def test_it_may_not_read_another_namespaces_run(trained: tuple[cluster.TrainingJob, ClusterMlflow], namespace: str) -> None:
    _, trainer = trained
    other = cluster.apply_sample("breast-cancer-mlp", namespace)
    cluster.eventually("its run", lambda: other.status.get("run"), 60)
    run = other.status["run"]["id"]
    assert trainer.refuses("GET", "2.0/mlflow/runs/get", run_id=run)
    assert trainer.refuses("POST", "2.0/mlflow/runs/set-tag", {"run_id": run, "key": "a", "value": "b"})


def test_a_wrong_password_opens_nothing(mlflow: ClusterMlflow) -> None:
    assert mlflow.acting_as("trainer.default", "guess").status("POST", "2.0/mlflow/experiments/search", {"max_results": 1}) == 401
