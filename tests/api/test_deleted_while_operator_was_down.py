"""What happens while no operator is there is found at its next start."""

from collections.abc import Callable

from dropout_testing.control_plane import ControlPlane
from dropout_testing.jobs import SYSTEM, create
from dropout_testing.mlflow_server import MlflowServer
from dropout_testing.operators import OperatorProcess
from dropout_testing.processes import wait_until

NewOperator = Callable[..., OperatorProcess]


def test_a_job_deleted_meanwhile_leaves_nothing_and_its_run_is_killed(
    new_operator: NewOperator, plane: ControlPlane, mlflow: MlflowServer, namespace: str,
) -> None:
    operator = new_operator()
    operator.start()
    training, judged = create(plane, namespace, "training"), create(plane, namespace, "judged")
    training.pod_starts()
    training.reaches("Running")
    judged.trains()
    judged.waits("a verify Job", lambda: judged.jobs("verify"))
    uids, verify = [training.uid, judged.uid], f"/apis/batch/v1/namespaces/{SYSTEM}/jobs/verify-{judged.uid}"
    operator.kill()
    training.delete()
    judged.delete()

    operator.start()

    for uid in uids:
        wait_until("the run to be KILLED", lambda uid=uid: [run["info"]["status"] for run in mlflow.runs_of(uid)] == ["KILLED"], 120)
    wait_until("the verify Job to go", lambda: plane.get(verify) is None)
    wait_until("the pods to go", lambda: plane.request("GET", f"/api/v1/namespaces/{namespace}/pods")["items"] == [])


def test_a_training_that_ended_meanwhile_is_verified(
    new_operator: NewOperator, plane: ControlPlane, mlflow: MlflowServer, namespace: str,
) -> None:
    operator = new_operator()
    operator.start()
    job = create(plane, namespace, "ended")
    job.pod_starts()
    job.reaches("Running")
    operator.kill()
    job.pod_ends()

    operator.start()

    job.reaches("Verifying")
    job.is_verified()
    job.reaches("Succeeded")
    assert len(mlflow.runs_of(job.uid)) == 1


def test_a_finished_job_is_not_touched_by_a_restart(new_operator: NewOperator, plane: ControlPlane, namespace: str) -> None:
    operator = new_operator()
    operator.start()
    job = create(plane, namespace, "done")
    job.trains()
    job.is_verified()
    job.reaches("Succeeded")
    job.closes()
    before = job.raw()["metadata"]["resourceVersion"]
    assert operator.stop() == 0

    operator.start()
    other = create(plane, namespace, "next")
    other.waits("its Job", lambda: other.jobs("train"))

    assert job.raw()["metadata"]["resourceVersion"] == before


def test_a_namesake_made_later_gets_a_run_and_a_job_of_its_own(
    new_operator: NewOperator, plane: ControlPlane, mlflow: MlflowServer, namespace: str,
) -> None:
    operator = new_operator()
    operator.start()
    first = create(plane, namespace, "again")
    first.pod_starts()
    first.reaches("Running")
    old, old_run = first.uid, first.status["run"]["id"]
    operator.kill()
    first.delete()
    second = create(plane, namespace, "again")
    assert second.uid != old

    operator.start()

    second.waits("a Job of its own", lambda: second.jobs("train") or second.phase == "Failed")
    assert second.phase != "Failed", second.status
    assert second.status["run"]["id"] != old_run
    wait_until("the old run to be KILLED", lambda: mlflow.runs_of(old)[0]["info"]["status"] == "KILLED")
