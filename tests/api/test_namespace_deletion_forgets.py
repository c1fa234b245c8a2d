"""A namespace that goes takes its jobs along; the operator lets go, and closes what lives elsewhere."""

from dropout_testing.control_plane import ControlPlane
from dropout_testing.jobs import create
from dropout_testing.mlflow_server import MlflowServer
from dropout_testing.operators import OperatorProcess
from dropout_testing.processes import wait_until


def test_a_deleted_namespace_goes_and_its_runs_are_killed(
    operator: OperatorProcess, plane: ControlPlane, mlflow: MlflowServer, namespace: str,
) -> None:
    jobs = [create(plane, namespace, f"job-{number}") for number in range(3)]
    jobs[0].pod_starts()
    jobs[0].reaches("Running")
    jobs[1].waits("its Job", lambda: jobs[1].jobs("train"))
    uids = [job.uid for job in jobs]

    plane.request("DELETE", f"/api/v1/namespaces/{namespace}")

    wait_until("the namespace to go", lambda: plane.get(f"/api/v1/namespaces/{namespace}") is None, 120)
    for uid in uids:
        wait_until("no run to be open", lambda uid=uid: {run["info"]["status"] for run in mlflow.runs_of(uid)} <= {"KILLED"}, 120)
    wait_until("no series to be left", lambda: namespace not in operator.metrics())
