"""What goes wrong on the way to the API server delays a job; it needs no new event, and nothing is made twice."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from dropout_testing.control_plane import ControlPlane
from dropout_testing.fault_proxy import FaultProxy, Kind, fault_proxy
from dropout_testing.jobs import SYSTEM, Job, Witness, create
from dropout_testing.mlflow_server import MlflowServer
from dropout_testing.operators import OperatorProcess, operating
from dropout_testing.processes import wait_until

TRAINING_JOBS = r"/apis/training.dropout.dev/v1alpha1/"
STATUS = r"/dropouttrainingjobs/{name}/status"
ONE = r"/dropouttrainingjobs/{name}(\?|$)"
JOBS = r"/namespaces/team-[0-9a-f]+/jobs\?fieldManager"
VERIFY = rf"/namespaces/{SYSTEM}/jobs\?fieldManager"
SECRETS = r"/secrets\?"
EVENTS = r"/events\?"
WATCH = r"watch=true"
FAULTS: list[tuple[str, str, str, Kind | int, int]] = [
    ("conflict on status", "PATCH", STATUS, 409, 2), ("busy on status", "PATCH", STATUS, 429, 2),
    ("error on status", "PATCH", STATUS, 500, 3),
    ("status written and not answered", "PATCH", STATUS, "lose", 1), ("status dropped", "PATCH", STATUS, "drop", 2),
    ("status answered by halves", "PATCH", STATUS, "truncate", 1), ("status not authorised once", "PATCH", STATUS, 401, 1),
    ("reading fails", "GET", ONE, 503, 3), ("reading answered by halves", "GET", ONE, "truncate", 1),
    ("reading forbidden once", "GET", ONE, 403, 1),
    ("Job made and not answered", "POST", JOBS, "lose", 1), ("Job refused for now", "POST", JOBS, 429, 2),
    ("Job dropped", "POST", JOBS, "drop", 1),
    ("quota full", "POST", JOBS, 403, 1), ("error on Job", "POST", JOBS, 500, 2), ("error on Secret", "POST", SECRETS, 500, 1),
    ("Secret made and not answered", "POST", SECRETS, "lose", 1), ("Events refused", "POST", EVENTS, 403, 99),
    ("Events lost", "POST", EVENTS, "drop", 99),
    ("verify Job made and not answered", "POST", VERIFY, "lose", 1), ("error on verify Job", "POST", VERIFY, 503, 2),
    ("children not listed", "GET", r"/jobs\?labelSelector", 500, 2), ("pods not listed", "GET", r"/pods\?labelSelector", "drop", 2),
]


@dataclass(frozen=True)
class Bench:
    proxy: FaultProxy
    operator: OperatorProcess
    witness: Witness


@pytest.fixture(scope="module")
def bench(plane: ControlPlane, mlflow: MlflowServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """An operator that reaches the API server through a proxy."""
    folder = tmp_path_factory.mktemp("faults")
    with fault_proxy(plane.url) as proxy, Witness(plane) as witness:
        # Resyncs are too rare to help: what converges here does so by itself.
        process = OperatorProcess(plane, mlflow, folder, api=proxy.url, environment={"DROPOUT_RESYNC_SECONDS": "3600"})
        with operating(process):
            yield Bench(proxy, process, witness)


@pytest.fixture(autouse=True)
def _healed(bench: Bench) -> Iterator[None]:
    yield
    bench.proxy.heal()


def converges(job: Job, bench: Bench, mlflow: MlflowServer) -> None:
    """The job comes to its end, and there is one of everything."""
    uid = job.uid
    job.trains()
    job.is_verified()
    job.reaches("Succeeded")
    job.closes()
    assert bench.witness.count(job.namespace, f"{job.name}-1") == 1
    assert bench.witness.count(job.namespace, f"{job.name}-2") == 0
    assert bench.witness.count(SYSTEM, f"verify-{uid}") == 1
    assert [run["info"]["status"] for run in mlflow.runs_of(uid)] == ["FINISHED"]


@pytest.mark.parametrize(("method", "path", "does", "times"), [row[1:] for row in FAULTS], ids=[row[0] for row in FAULTS])
def test_a_job_converges(
    method: str, path: str, does: Kind | int, times: int, bench: Bench, plane: ControlPlane, mlflow: MlflowServer, namespace: str,
) -> None:
    headers = {"Retry_After": "1"} if does == 429 else {}
    fault = bench.proxy.inject(method, path.replace("{name}", "digits"), does, times, **headers)

    converges(create(plane, namespace, "digits"), bench, mlflow)

    assert fault.hits > 0, "the fault was never met, so nothing was proved"


def test_an_api_server_that_is_silent_is_given_up_and_asked_again(
    bench: Bench, plane: ControlPlane, mlflow: MlflowServer, namespace: str,
) -> None:
    fault = bench.proxy.inject("PATCH", STATUS.replace("{name}", "silent"), "hang", 1)

    converges(create(plane, namespace, "silent"), bench, mlflow)

    assert fault.hits == 1


@pytest.mark.parametrize("does", ["gone", "truncate", "drop", 401, 410, 500])
def test_a_watch_that_breaks_is_taken_up_again(
    does: Kind | int, bench: Bench, plane: ControlPlane, mlflow: MlflowServer, namespace: str,
) -> None:
    broken = bench.proxy.inject("GET", f"{re.escape(TRAINING_JOBS)}dropouttrainingjobs.*{WATCH}", does, 1)
    bench.proxy.cut_watches()
    wait_until("the broken watch", lambda: broken.hits == 1, 60)

    converges(create(plane, namespace, "digits"), bench, mlflow)
