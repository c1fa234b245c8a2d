"""MLflow away, or deaf, at the moments that matter: a job waits, or ends without it; there is never a second run."""

from collections.abc import Callable

from dropout_testing.control_plane import ControlPlane
from dropout_testing.fault_proxy import fault_proxy
from dropout_testing.jobs import create
from dropout_testing.mlflow_server import MlflowServer
from dropout_testing.operators import OperatorProcess

NewOperator = Callable[..., OperatorProcess]
FOREVER = 10_000


def test_a_job_waits_for_mlflow_and_says_so(new_operator: NewOperator, plane: ControlPlane, mlflow: MlflowServer, namespace: str) -> None:
    with fault_proxy(mlflow.url) as proxy:
        proxy.inject(".*", "/api/", "drop", FOREVER)
        new_operator(mlflow_url=proxy.url).start()
        job = create(plane, namespace, "waits")
        job.waits("the condition", lambda: job.condition("TrackingHealthy") == "False")
        assert job.phase == "Pending"
        assert "waiting for MLflow" in job.status["message"]
        job.waits("the Event", lambda: "TrackingUnavailable" in job.events())
        assert job.jobs("train") == []

        proxy.heal()

        job.waits("its Job", lambda: job.jobs("train"))
        assert job.condition("TrackingHealthy") == "True"
        assert len(mlflow.runs_of(job.uid)) == 1


def test_a_run_whose_creation_was_not_answered_is_found_again(
    new_operator: NewOperator, plane: ControlPlane, mlflow: MlflowServer, namespace: str,
) -> None:
    with fault_proxy(mlflow.url) as proxy:
        lost = proxy.inject("POST", "/runs/create", "lose")
        new_operator(mlflow_url=proxy.url).start()
        job = create(plane, namespace, "lost")
        job.waits("its Job", lambda: job.jobs("train"))

        assert lost.hits == 1
        assert [run["info"]["run_id"] for run in mlflow.runs_of(job.uid)] == [job.status["run"]["id"]]


def test_a_user_whose_creation_was_not_answered_is_no_obstacle(
    new_operator: NewOperator, plane: ControlPlane, mlflow: MlflowServer, namespace: str,
) -> None:
    with fault_proxy(mlflow.url) as proxy:
        lost = [proxy.inject("POST", path, "lose") for path in ("/users/create", "/permissions/grant", "/experiments/create")]
        new_operator(mlflow_url=proxy.url).start()
        job = create(plane, namespace, "granted")
        job.waits("its Job", lambda: job.jobs("train"))

        assert [fault.hits for fault in lost] == [1, 1, 1]
        assert len(mlflow.runs_of(job.uid)) == 1


def test_the_end_is_told_at_once_and_the_run_is_closed_when_mlflow_is_back(
    new_operator: NewOperator, plane: ControlPlane, mlflow: MlflowServer, namespace: str,
) -> None:
    with fault_proxy(mlflow.url) as proxy:
        new_operator(mlflow_url=proxy.url).start()
        job = create(plane, namespace, "ends")
        job.trains()
        away = proxy.inject(".*", "/api/", "drop", FOREVER)
        job.is_verified()
        status = job.reaches("Succeeded")
        job.waits("MLflow to be asked", lambda: away.hits > 0)
        assert job.condition("RunClosed") is None
        assert job.condition("Complete") == "True"

        proxy.heal()

        job.closes()
        assert [(run["info"]["run_id"], run["info"]["status"]) for run in mlflow.runs_of(job.uid)] == [(status["run"]["id"], "FINISHED")]


def test_a_silent_mlflow_does_not_hold_up_jobs_that_do_not_need_it(
    new_operator: NewOperator, plane: ControlPlane, mlflow: MlflowServer, namespace: str,
) -> None:
    with fault_proxy(mlflow.url) as proxy:
        operator = new_operator(mlflow_url=proxy.url, environment={"DROPOUT_WORKERS": "4"})
        operator.start()
        job = create(plane, namespace, "goes-on")
        job.pod_starts()
        job.reaches("Running")
        proxy.inject(".*", "/api/", "hang", FOREVER)
        held = [create(plane, namespace, f"held-{number}") for number in range(3)]
        job.pod_ends()
        job.reaches("Verifying")

        assert operator.ready()
        assert {waiting.phase for waiting in held} == {"Pending"}
