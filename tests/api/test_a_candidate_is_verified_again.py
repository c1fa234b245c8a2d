"""`spec.from` on a real API server and a real MLflow: whose run it is decides, and nothing is trained."""

import json
from typing import Any

import pytest
from dropout_testing.control_plane import ControlPlane
from dropout_testing.jobs import REJECTED, SYSTEM, Job, create
from dropout_testing.mlflow_server import TRAINER_KEY, MlflowServer
from dropout_testing.processes import wait_until

from dropout_operator.identities import trainer_password

pytestmark = pytest.mark.usefixtures("operator")
NOWHERE = "0123456789abcdef" * 2


def verify_again(plane: ControlPlane, namespace: str, run: str, name: str = "again", **spec: Any) -> Job:
    return create(plane, namespace, name, model=None, data=None, **{"from": {"run": run}}, **spec)


@pytest.fixture
def rejected(plane: ControlPlane, namespace: str) -> Job:
    """A job whose model was trained and did not pass its bar."""
    job = create(plane, namespace, "first", gate=[{"metric": "accuracy", "min": 0.999}])
    job.trains()
    job.is_verified(REJECTED)
    job.reaches("Rejected")
    job.closes()
    return job


def task_of(verify: Any) -> Any:
    (container,) = verify["spec"]["template"]["spec"]["containers"]
    return json.loads(next(item["value"] for item in container["env"] if item["name"] == "DROPOUT_TASK"))


def test_it_gets_a_run_of_its_own_and_a_verdict_and_nothing_is_trained(plane: ControlPlane, mlflow: MlflowServer, rejected: Job) -> None:
    source = rejected.status["run"]
    job = verify_again(plane, rejected.namespace, source["id"], gate=[{"metric": "accuracy", "min": 0.9}])
    job.waits("a verify Job", lambda: job.jobs("verify"))
    (verify,) = job.jobs("verify")
    job.is_verified()
    status = job.reaches("Succeeded")
    job.closes()

    task = task_of(verify)
    assert verify["metadata"]["namespace"] == SYSTEM
    assert (task["source"], task["run"]["id"]) == ({"id": source["id"], "experimentId": source["experimentId"]}, status["run"]["id"])
    assert task["imageId"] == status["imageID"] == "sha256:abc"
    assert task["spec"]["gate"] == [{"metric": "accuracy", "min": 0.9}]
    assert (job.jobs("train"), status.get("attempts", [])) == ([], [])
    assert [job.condition(kind) for kind in ("Complete", "Trained", "GatePassed", "Registered", "RunClosed")] == ["True"] * 5
    (run,) = mlflow.runs_of(job.uid)
    tags = {tag["key"]: tag["value"] for tag in run["data"]["tags"]}
    assert (run["info"]["run_id"], run["info"]["status"]) == (status["run"]["id"], "FINISHED")
    assert tags["dropout.from_run"] == source["id"] != run["info"]["run_id"]
    assert {"RunCreated", "Reused", "ModelRegistered"} <= set(job.events())
    (left,) = mlflow.runs_of(rejected.uid)
    assert left["info"]["status"] == "FAILED"


def test_a_run_that_outlived_its_job_is_verified_without_knowing_its_image(plane: ControlPlane, rejected: Job) -> None:
    run = rejected.status["run"]["id"]
    rejected.delete()
    wait_until("the job to go", lambda: rejected.raw() == {})
    job = verify_again(plane, rejected.namespace, run)
    job.waits("a verify Job", lambda: job.jobs("verify"))

    assert "imageId" not in task_of(job.jobs("verify")[0])


def test_another_namespaces_run_is_refused_as_one_that_does_not_exist(plane: ControlPlane, mlflow: MlflowServer, rejected: Job) -> None:
    plane.request("POST", "/api/v1/namespaces", {"metadata": {"name": f"{rejected.namespace}-thief"}})
    thief, theirs = f"{rejected.namespace}-thief", rejected.status["run"]["id"]
    taken = verify_again(plane, thief, theirs, "taken").reaches("Failed")
    guessed = verify_again(plane, thief, NOWHERE, "guessed").reaches("Failed")

    assert taken["failure"]["reason"] == guessed["failure"]["reason"] == "RunNotFound"
    assert taken["message"].replace(theirs, "") == guessed["message"].replace(NOWHERE, "")
    assert taken["message"].startswith("spec.from.run: ")
    for name in ("taken", "guessed"):
        job = Job(plane, thief, name)
        assert (job.jobs("verify"), mlflow.runs_of(job.uid), "run" in job.status) == ([], [], False)


def test_a_tag_that_its_trainer_wrote_lends_a_run_to_no_other_namespace(plane: ControlPlane, mlflow: MlflowServer, rejected: Job) -> None:
    plane.request("POST", "/api/v1/namespaces", {"metadata": {"name": f"{rejected.namespace}-friend"}})
    friend, run = f"{rejected.namespace}-friend", rejected.status["run"]["id"]
    login = {"user": f"trainer.{rejected.namespace}", "password": trainer_password(TRAINER_KEY.encode(), rejected.namespace)}
    mlflow.request("POST", "2.0/mlflow/runs/set-tag", {"run_id": run, "key": "dropout.namespace", "value": friend}, **login)

    assert verify_again(plane, friend, run).reaches("Failed")["failure"]["reason"] == "RunNotFound"
    assert verify_again(plane, rejected.namespace, run).reaches("Failed")["failure"]["reason"] == "RunNotFound"


def test_a_deleted_run_is_no_run(plane: ControlPlane, mlflow: MlflowServer, rejected: Job) -> None:
    run = rejected.status["run"]["id"]
    mlflow.request("POST", "2.0/mlflow/runs/delete", {"run_id": run})

    assert verify_again(plane, rejected.namespace, run).reaches("Failed")["failure"]["reason"] == "RunNotFound"


def test_a_run_that_still_trains_or_trained_nothing_is_refused(plane: ControlPlane, namespace: str) -> None:
    trains = create(plane, namespace, "trains")
    trains.pod_starts()
    run = trains.reaches("Running")["run"]["id"]

    assert verify_again(plane, namespace, run, "early").reaches("Failed")["failure"]["reason"] == "RunNotEnded"

    trains.pod_ends()
    trains.reaches("Verifying")
    trains.is_verified(REJECTED)
    trains.closes()
    again = verify_again(plane, namespace, run, "again")
    again.waits("a verify Job", lambda: again.jobs("verify"))
    again.is_verified(REJECTED)
    again.closes()
    failure = verify_again(plane, namespace, again.status["run"]["id"], "again-again").reaches("Failed")["failure"]

    assert failure["reason"] == "RunTrainedNothing"
    assert run in failure["message"]


def test_suspended_it_holds_no_verifier_and_resumed_it_gets_a_new_one(plane: ControlPlane, mlflow: MlflowServer, rejected: Job) -> None:
    job = verify_again(plane, rejected.namespace, rejected.status["run"]["id"], suspend=True)
    job.reaches("Suspended")
    assert (job.jobs("verify"), mlflow.runs_of(job.uid)) == ([], [])

    job.change(suspend=False)
    job.pod_starts("verify")
    first = job.jobs("verify")[0]["metadata"]["uid"]
    job.change(suspend=True)
    job.reaches("Suspended")
    job.waits("its verifier to go", lambda: not job.jobs("verify"))

    job.change(suspend=False)
    job.waits("a new verifier", lambda: job.jobs("verify"))
    assert job.jobs("verify")[0]["metadata"]["uid"] != first
    job.waits("its pod", lambda: [pod for pod in job.pods("verify") if pod["metadata"]["ownerReferences"][0]["uid"] != first])
    job.is_verified()
    job.reaches("Succeeded")
    assert len(mlflow.runs_of(job.uid)) == 1


def test_deleted_under_way_it_leaves_no_verifier_and_a_run_that_is_killed(plane: ControlPlane, mlflow: MlflowServer, rejected: Job) -> None:
    job = verify_again(plane, rejected.namespace, rejected.status["run"]["id"])
    job.pod_starts("verify")
    (verify,), uid = job.jobs("verify"), job.uid
    job.delete()

    path = f"/apis/batch/v1/namespaces/{SYSTEM}/jobs/{verify['metadata']['name']}"
    wait_until("the verify Job to go", lambda: plane.get(path) is None)
    wait_until("the run to be KILLED", lambda: mlflow.runs_of(uid)[0]["info"]["status"] == "KILLED")


def test_a_time_to_live_deletes_it(plane: ControlPlane, namespace: str) -> None:
    job = verify_again(plane, namespace, NOWHERE, ttlSecondsAfterFinished={"failed": 0})

    wait_until("the job to go", lambda: job.raw() == {})
