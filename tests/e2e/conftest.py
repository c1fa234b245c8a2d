"""The chart on a real cluster, for the whole suite once: operator, MLflow and, on this machine, Prometheus.

`make e2e` starts the cluster and loads the images before this runs and ends the cluster after. Each test has a namespace
of its own that enforces Pod Security `restricted`, so every pod we make is held to it by the API server.
"""

import fcntl
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from dropout_testing import cluster
from dropout_testing.mlflow_client import ClusterMlflow
from dropout_testing.prometheus import Prometheus, prometheus


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """RBAC is judged by what the other tests made the operator do; after that the chart, and with it RBAC, is taken away."""
    last = {"test_every_grant_is_used_and_enough": 1, "test_upgrade_uninstall_reinstall_with_live_jobs": 2}
    items.sort(key=lambda item: last.get(Path(item.path).stem, 0))


@pytest.fixture(scope="session", autouse=True)
def installed(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The chart, installed and ready. Of several workers one does it and the others wait."""
    if subprocess.run(["kubectl", "get", "nodes"], capture_output=True, check=False).returncode != 0:
        message = "no cluster: `make e2e` starts one, which needs Linux and root"
        pytest.fail(message) if cluster.in_ci() else pytest.skip(message)
    done = (tmp_path_factory.getbasetemp() / ".." / "installed").resolve() if "PYTEST_XDIST_WORKER" in os.environ else None
    if done is None:
        return cluster.install()
    with done.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            cluster.install()
            done.touch()
    return None


@pytest.fixture(scope="session")
def mlflow(installed: None) -> ClusterMlflow:
    return ClusterMlflow.of_cluster()


@pytest.fixture(scope="session")
def metrics(installed: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    with prometheus(tmp_path_factory.mktemp("prometheus")) as server:
        yield server


@pytest.fixture
def namespace(installed: None) -> Iterator[str]:
    """A new namespace, deleted afterwards unless KEEP is set."""
    name = cluster.new_namespace("e2e")
    yield name
    if not os.environ.get("KEEP"):
        cluster.kubectl("delete", "namespace", name, "--wait=false")
