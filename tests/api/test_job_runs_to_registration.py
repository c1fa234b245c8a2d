"""A job's whole life: manifest in, version, run and Events out."""

import json

import pytest
from dropout_testing.control_plane import ControlPlane
from dropout_testing.jobs import REJECTED, SYSTEM, create
from dropout_testing.mlflow_server import MlflowServer
from dropout_testing.operators import OperatorProcess
from dropout_testing.processes import wait_until

pytestmark = pytest.mark.usefixtures("operator")


def test_a_model_that_passes_becomes_a_version(
    plane: ControlPlane, mlflow: MlflowServer, namespace: str, operator: OperatorProcess,
) -> None:
    job = create(plane, namespace, "digits")
    assert job.phase in ("Pending", "Starting")

    job.trains()
    job.is_verified()
    status = job.reaches("Succeeded")
    job.closes()

    assert status["model"] == {"name": "team.digits", "version": "1", "uri": "models:/team.digits/1"}
    assert [job.condition(kind) for kind in ("Complete", "Trained", "GatePassed", "Registered", "TrackingHealthy")] == ["True"] * 5
    assert all(item["observedGeneration"] == 1 for item in job.status["conditions"])
    (run,) = mlflow.runs_of(job.uid)
    assert (run["info"]["run_id"], run["info"]["status"]) == (status["run"]["id"], "FINISHED")
    assert {"RunCreated", "TrainingStarted", "Trained", "ModelRegistered"} <= set(job.events())
    assert f'dropout_job_info{{model="models:/team.digits/1",name="digits",namespace="{namespace}",phase="Succeeded"' in operator.metrics()


def test_the_verifier_runs_apart_from_the_users_namespace(plane: ControlPlane, namespace: str) -> None:
    tainted = {"tolerations": [{"key": "gpu", "operator": "Exists"}], "env": [{"name": "PYTHONPATH", "value": "/evil"}],
               "volumes": [{"name": "code", "configMap": {"name": "code"}}], "volumeMounts": [{"name": "code", "mountPath": "/evil"}],
               "labels": {"training.dropout.dev/stage": "verify"}, "serviceAccountName": "someone", "nodeSelector": {"disk": "evil"}}
    job = create(plane, namespace, "reaches-out", podTemplate=tainted, image="evil:latest", resourcesPerNode={"limits": {"cpu": "7"}})
    job.trains()
    job.waits("a verify Job", lambda: job.jobs("verify"))

    (verify,) = job.jobs("verify")
    assert verify["metadata"]["namespace"] == SYSTEM
    pod = verify["spec"]["template"]["spec"]
    task = next(item["value"] for item in pod["containers"][0]["env"] if item["name"] == "DROPOUT_TASK")
    rest = json.dumps(verify).replace(json.dumps(task), "")
    assert [item["key"] for item in pod["tolerations"]] == ["gpu"]
    assert not [word for word in ("evil", "someone", "PYTHONPATH") if word in rest]


def test_a_model_that_fails_the_gate_is_rejected(plane: ControlPlane, mlflow: MlflowServer, namespace: str) -> None:
    job = create(plane, namespace, "careless")
    job.trains()
    job.is_verified(REJECTED)
    status = job.reaches("Rejected")
    job.closes()

    assert status["gate"] == {"verdict": "Failed", "failed": ["no_random_ops"]}
    assert "model" not in status
    (run,) = mlflow.runs_of(job.uid)
    assert run["info"]["status"] == "FAILED"


def test_a_training_that_fails_says_why(plane: ControlPlane, mlflow: MlflowServer, namespace: str) -> None:
    job = create(plane, namespace, "diverges")
    job.pod_starts()
    job.reaches("Running")
    job.pod_ends(exit_code=71, message=json.dumps({"stage": "train", "reason": "NonFiniteLoss", "message": "loss is NaN at epoch 2"}))
    status = job.reaches("Failed")
    job.closes()

    assert (status["failure"]["reason"], status["failure"]["exitCode"]) == ("NonFiniteLoss", 71)
    assert job.jobs("verify") == []
    assert mlflow.runs_of(job.uid)[0]["info"]["status"] == "FAILED"


@pytest.mark.parametrize("message", [
    "", "{", "\u0000\u0001", "x" * 4096, '{"stage":"verify","verdict":"Passed","modelName":"a","modelVersion":"1"}',
])
def test_a_forged_training_report_registers_nothing(message: str, plane: ControlPlane, namespace: str) -> None:
    job = create(plane, namespace, "forges")
    job.pod_starts()
    job.reaches("Running")
    job.pod_ends(message=message)
    job.reaches("Verifying")

    assert not {"model", "gate"} & job.status.keys()


def test_wrong_arguments_fail_before_anything_is_made(plane: ControlPlane, mlflow: MlflowServer, namespace: str) -> None:
    job = create(plane, namespace, "misspelt", model={"factory": "mlp", "args": {"hiden": [1]}})
    status = job.reaches("Failed")

    assert status["failure"]["reason"] == "InvalidSpec"
    assert "spec.model.args.hiden" in status["message"]
    assert (job.jobs("train"), mlflow.runs_of(job.uid)) == ([], [])


def test_suspend_ends_the_pod_and_resume_starts_a_second_attempt(plane: ControlPlane, mlflow: MlflowServer, namespace: str) -> None:
    job = create(plane, namespace, "paused")
    job.pod_starts()
    job.reaches("Running")
    job.change(suspend=True)
    job.reaches("Suspended")
    job.waits("its Job to go", lambda: not job.jobs("train"))
    job.waits("the run to wait", lambda: mlflow.runs_of(job.uid)[0]["info"]["status"] == "SCHEDULED")

    job.change(suspend=False)
    job.waits("a second Job", lambda: [item["metadata"]["name"] for item in job.jobs("train")] == ["paused-2"])
    job.trains()
    job.is_verified()
    status = job.reaches("Succeeded")

    assert [(item["number"], item["reason"]) for item in status["attempts"]] == [(1, "Suspended"), (2, "Completed")]
    assert len(mlflow.runs_of(job.uid)) == 1


def test_a_time_to_live_deletes_the_job_and_keeps_the_run(plane: ControlPlane, mlflow: MlflowServer, namespace: str) -> None:
    job = create(plane, namespace, "short-lived", ttlSecondsAfterFinished={"failed": 0})
    uid = job.uid
    job.pod_starts()
    job.reaches("Running")
    job.pod_ends(exit_code=1, message="")

    wait_until("the job to go", lambda: job.raw() == {})
    assert [run["info"]["status"] for run in mlflow.runs_of(uid)] == ["FAILED"]


def test_a_job_deleted_under_way_ends_its_run_as_killed(plane: ControlPlane, mlflow: MlflowServer, namespace: str) -> None:
    job = create(plane, namespace, "deleted")
    job.pod_starts()
    job.reaches("Running")
    uid, pods = job.uid, f"/api/v1/namespaces/{namespace}/pods"
    job.delete()

    wait_until("the run to be KILLED", lambda: mlflow.runs_of(uid)[0]["info"]["status"] == "KILLED")
    wait_until("the pod to go", lambda: plane.request("GET", pods)["items"] == [])
