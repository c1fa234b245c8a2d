"""`spec.model.weights` on a real API server and a real MLflow: whose run it is decides, and the trainer is told that run alone."""

import json
from typing import Any

import pytest
from dropout_testing.control_plane import ControlPlane
from dropout_testing.jobs import REJECTED, Job, create
from dropout_testing.mlflow_server import MlflowServer

pytestmark = pytest.mark.usefixtures("operator")
NOWHERE = "0123456789abcdef" * 2


def tunes(plane: ControlPlane, namespace: str, name: str, **weights: Any) -> Job:
    return create(plane, namespace, name, model={"factory": "mlp", "weights": weights})


def told(job: Job) -> dict[str, Any]:
    """The weights in the task of the job's training pod."""
    job.waits("a training Job", lambda: job.jobs("train"))
    (container,) = job.jobs("train")[0]["spec"]["template"]["spec"]["containers"]
    task = json.loads(next(item["value"] for item in container["env"] if item["name"] == "DROPOUT_TASK"))
    found: dict[str, Any] = task["weights"]
    return found


@pytest.fixture
def trained(plane: ControlPlane, namespace: str) -> Job:
    job = create(plane, namespace, "first")
    job.trains()
    job.is_verified(REJECTED)
    job.reaches("Rejected")
    job.closes()
    return job


def register(mlflow: MlflowServer, name: str, run: str) -> int:
    """A version of `name` whose run is `run`, as the verifier's user writes it."""
    mlflow.request("POST", "2.0/mlflow/registered-models/create", {"name": name}, "verifier")
    uri = mlflow.request("GET", f"2.0/mlflow/runs/get?run_id={run}")["run"]["info"]["artifact_uri"]
    version = {"name": name, "source": f"{uri}/candidate", "run_id": run}
    made = mlflow.request("POST", "2.0/mlflow/model-versions/create", version, "verifier")
    return int(made["model_version"]["version"])


def test_a_run_and_a_version_of_the_namespace_are_one_to_the_trainer(plane: ControlPlane, mlflow: MlflowServer, trained: Job) -> None:
    run = trained.status["run"]
    wanted = {"id": run["id"], "experimentId": run["experimentId"]}
    number = register(mlflow, f"{trained.namespace}.digits", run["id"])

    assert told(tunes(plane, trained.namespace, "by-run", run=run["id"])) == wanted
    assert told(tunes(plane, trained.namespace, "by-version", model="digits", version=number)) == wanted


def test_what_is_not_the_namespaces_own_is_refused_as_what_does_not_exist(plane: ControlPlane, mlflow: MlflowServer, trained: Job) -> None:
    thief, theirs = f"{trained.namespace}-thief", trained.status["run"]["id"]
    plane.request("POST", "/api/v1/namespaces", {"metadata": {"name": thief}})
    number = register(mlflow, f"{thief}.digits", theirs)
    failures = {
        name: tunes(plane, thief, name, **weights).reaches("Failed")["failure"]
        for name, weights in {
            "taken": {"run": theirs}, "guessed": {"run": NOWHERE}, "forged": {"model": "digits", "version": number},
            "absent": {"model": "digits", "version": number + 1}, "alias": {"model": "nothing", "alias": "champion"},
        }.items()
    }

    assert failures["taken"]["reason"] == failures["guessed"]["reason"] == "RunNotFound"
    assert failures["taken"]["message"].replace(theirs, "") == failures["guessed"]["message"].replace(NOWHERE, "")
    assert {failures[name]["reason"] for name in ("forged", "absent", "alias")} == {"VersionNotFound"}
    assert failures["forged"]["message"] == failures["absent"]["message"].replace(f"version {number + 1}", f"version {number}")
    for name in failures:
        job = Job(plane, thief, name)
        assert (job.jobs("train"), mlflow.runs_of(job.uid), "run" in job.status) == ([], [], False)
