"""What deleted jobs leave outside of their namespace is found by UID, and nobody else's is touched."""

from collections.abc import Callable

from dropout_testing.control_plane import ControlPlane
from dropout_testing.jobs import SYSTEM, create
from dropout_testing.mlflow_server import MlflowServer
from dropout_testing.operators import OperatorProcess
from dropout_testing.processes import wait_until

NewOperator = Callable[..., OperatorProcess]
GHOST = "00000000-0000-0000-0000-00000000dead"


def verify_job(name: str, uid: str) -> dict[str, object]:
    labels = {"training.dropout.dev/stage": "verify", "training.dropout.dev/job-uid": uid}
    pod = {"restartPolicy": "Never", "containers": [{"name": "verify", "image": "none"}]}
    return {"metadata": {"name": name, "labels": labels}, "spec": {"template": {"metadata": {"labels": labels}, "spec": pod}}}


def experiment(mlflow: MlflowServer, name: str, cluster: str) -> str:
    tags = [{"key": "dropout.cluster", "value": cluster}]
    return str(mlflow.request("POST", "2.0/mlflow/experiments/create", {"name": name, "tags": tags})["experiment_id"])


def run(mlflow: MlflowServer, experiment_id: str, cluster: str, uid: str) -> None:
    tags = [{"key": "dropout.cluster", "value": cluster}, {"key": "dropout.uid", "value": uid}]
    mlflow.request("POST", "2.0/mlflow/runs/create", {"experiment_id": experiment_id, "tags": tags})


def test_verify_jobs_and_runs_of_jobs_that_are_gone(
    new_operator: NewOperator, plane: ControlPlane, mlflow: MlflowServer, namespace: str,
) -> None:
    cluster = plane.request("GET", "/api/v1/namespaces/kube-system")["metadata"]["uid"]
    jobs = f"/apis/batch/v1/namespaces/{SYSTEM}/jobs"
    plane.request("POST", jobs, verify_job("verify-ghost", GHOST))
    bystander = verify_job("bystander", GHOST)
    del bystander["metadata"]["labels"]["training.dropout.dev/stage"]  # type: ignore[index]
    plane.request("POST", jobs, bystander)
    run(mlflow, experiment(mlflow, f"{namespace}.ghost", cluster), cluster, GHOST)
    elsewhere = "11111111-0000-0000-0000-00000000beef"
    run(mlflow, experiment(mlflow, f"{namespace}.other-cluster", "another"), "another", elsewhere)

    new_operator().start()
    living = create(plane, namespace, "lives")
    living.waits("its Job", lambda: living.jobs("train"))

    wait_until("the run to be KILLED", lambda: mlflow.runs_of(GHOST)[0]["info"]["status"] == "KILLED")
    wait_until("the verify Job to go", lambda: plane.get(f"{jobs}/verify-ghost") is None)
    assert plane.get(f"{jobs}/bystander") is not None
    assert mlflow.runs_of(elsewhere)[0]["info"]["status"] == "RUNNING"
    assert mlflow.runs_of(living.uid)[0]["info"]["status"] != "KILLED"


def test_a_second_run_of_a_living_job_is_closed(
    new_operator: NewOperator, plane: ControlPlane, mlflow: MlflowServer, namespace: str,
) -> None:
    operator = new_operator(environment={"DROPOUT_RESYNC_SECONDS": "2"})
    operator.start()
    job = create(plane, namespace, "twice")
    job.waits("its Job", lambda: job.jobs("train"))
    own = job.status["run"]
    cluster = plane.request("GET", "/api/v1/namespaces/kube-system")["metadata"]["uid"]
    run(mlflow, own["experimentId"], cluster, job.uid)  # as a request does that was given up and done all the same

    def states() -> dict[bool, str]:
        return {item["info"]["run_id"] == own["id"]: item["info"]["status"] for item in mlflow.runs_of(job.uid)}

    wait_until("the other run to be KILLED", lambda: states().get(False) == "KILLED")
    assert states()[True] != "KILLED"
