"""Jobs and pods that carry our names and labels but are not ours."""

from typing import Any

import pytest
from dropout_testing import jobs
from dropout_testing.control_plane import ControlPlane
from dropout_testing.jobs import PASSED, create
from dropout_testing.mlflow_server import MlflowServer

pytestmark = pytest.mark.usefixtures("operator")


def job_of(name: str, labels: dict[str, str], **meta: Any) -> dict[str, Any]:
    pod = {"restartPolicy": "Never", "containers": [{"name": "verify", "image": "none"}]}
    return {
        "metadata": {"name": name, "labels": labels, **meta},
        "spec": {"template": {"metadata": {"labels": labels}, "spec": pod}},
    }


def test_a_strangers_job_of_our_name_is_a_conflict_and_stays(plane: ControlPlane, mlflow: MlflowServer, namespace: str) -> None:
    path = f"/apis/batch/v1/namespaces/{namespace}/jobs"
    stranger = plane.request("POST", path, job_of("digits-1", {"app": "stranger"}))["metadata"]["uid"]

    job = create(plane, namespace, "digits")
    status = job.reaches("Failed")
    job.closes()

    assert status["failure"]["reason"] == "NameConflict"
    assert "digits-1" in status["message"]
    left = plane.get(f"{path}/digits-1")
    assert left is not None
    assert left["metadata"]["uid"] == stranger
    assert "deletionTimestamp" not in left["metadata"]
    assert [run["info"]["status"] for run in mlflow.runs_of(job.uid)] == ["FAILED"]


def test_a_forged_verify_job_in_the_users_namespace_registers_nothing(plane: ControlPlane, namespace: str) -> None:
    job = create(plane, namespace, "digits")
    job.trains()
    labels = {
        "training.dropout.dev/job-uid": job.uid, "training.dropout.dev/stage": "verify", "training.dropout.dev/job-name": "digits",
        "training.dropout.dev/job-namespace": namespace,
    }
    plane.request("POST", f"/apis/batch/v1/namespaces/{namespace}/jobs", job_of(f"verify-{job.uid}", labels))

    def forged() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = plane.request("GET", f"/api/v1/namespaces/{namespace}/pods")["items"]
        return [pod for pod in found if pod["metadata"]["labels"].get("training.dropout.dev/stage") == "verify"]

    job.waits("the forged pod", forged)
    jobs.start(plane, forged()[0])
    jobs.end(plane, forged()[0], message=PASSED)
    job.waits("the forged Job to complete", lambda: forged()[0]["status"]["phase"] == "Succeeded")
    job.change(ttlSecondsAfterFinished={"failed": 100_000})  # an event, so that the operator looks
    job.waits("a look", lambda: job.status["observedGeneration"] >= 1)
    assert job.phase == "Verifying"

    job.is_verified(jobs.REJECTED)
    assert "model" not in job.reaches("Rejected")


def test_a_pod_that_claims_to_be_the_training_pod_starts_nothing(plane: ControlPlane, namespace: str) -> None:
    job = create(plane, namespace, "digits")
    job.waits("its Job", lambda: job.jobs("train"))
    labels = {"training.dropout.dev/job-uid": job.uid, "training.dropout.dev/stage": "train"}
    body = {"metadata": {"name": "pretender", "labels": labels}, "spec": {"containers": [{"name": "train", "image": "none"}]}}
    pretender = plane.request("POST", f"/api/v1/namespaces/{namespace}/pods", body)
    jobs.start(plane, pretender)
    jobs.end(plane, pretender, 1, "I fail you")
    job.waits("the real pod", lambda: len(job.pods("train")) == 2)
    real = next(pod for pod in job.pods("train") if pod["metadata"]["name"] != "pretender")
    jobs.start(plane, real)
    job.reaches("Running")

    assert job.status["startTime"]
    assert "failure" not in job.status
