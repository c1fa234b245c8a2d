"""A real API server and a real MLflow, one of each for the whole session. What is played is the kubelet alone.

Input: a manifest, and what a kubelet would write. Output: what the API server and MLflow hold afterwards.
"""

import os
import signal
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from dropout_testing.control_plane import ControlPlane, control_plane, find_binaries
from dropout_testing.jobs import GROUP, SYSTEM, forget
from dropout_testing.mlflow_server import MlflowServer, mlflow_server
from dropout_testing.operators import ROOT, OperatorProcess, operating
from dropout_testing.processes import wait_until

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


def pytest_configure() -> None:
    """A session that is told to end takes its servers along."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.fixture(scope="session")
def binaries() -> Path:
    """The control plane's programs. Where they are not built the test is skipped, on CI it fails."""
    found = find_binaries()
    if found is None:
        reason = "no control plane here: build it with hack/cluster/cluster build, or set CLUSTER_BIN"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    return found


@pytest.fixture(scope="session")
def plane(binaries: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """An API server that knows training jobs."""
    with control_plane(tmp_path_factory.mktemp("plane"), binaries) as running:
        running.request("POST", CRDS, yaml.safe_load((ROOT / "crds/dropouttrainingjobs.yaml").read_text()))
        running.request("POST", "/api/v1/namespaces", {"metadata": {"name": SYSTEM}})
        wait_until("the CRD", lambda: running.serves(f"{GROUP}/dropouttrainingjobs"))
        yield running


@pytest.fixture(scope="session")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """An MLflow with passwords on; its first, slow answer is behind it."""
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as server:
        server.runs_of("none")
        yield server


@pytest.fixture
def namespace(plane: ControlPlane) -> Iterator[str]:
    """A namespace of the test's own; its training jobs go with it."""
    name = f"team-{uuid.uuid4().hex[:8]}"
    plane.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    yield name
    if plane.get(f"/api/v1/namespaces/{name}") is not None:
        forget(plane, name)


@pytest.fixture
def new_operator(plane: ControlPlane, mlflow: MlflowServer, tmp_path: Path) -> Iterator[Callable[..., OperatorProcess]]:
    """Makes an operator that the test starts, kills and starts again; whatever runs at the end is ended."""
    made: list[OperatorProcess] = []

    def make(**options: object) -> OperatorProcess:
        made.append(OperatorProcess(plane, mlflow, tmp_path / f"operator-{len(made)}", **options))
        return made[-1]

    yield make
    for operator in made:
        operator.stop()
        assert operator.bugs() == []


@pytest.fixture(scope="module")
def operator(plane: ControlPlane, mlflow: MlflowServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OperatorProcess]:
    """An operator that runs for a whole module."""
    with operating(OperatorProcess(plane, mlflow, tmp_path_factory.mktemp("operator"))) as process:
        yield process
