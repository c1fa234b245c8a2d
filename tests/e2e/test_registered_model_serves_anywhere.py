"""What was registered loads and answers where MLflow and torch are, and none of our code."""

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from dropout_testing import cluster
from dropout_testing.mlflow_client import ClusterMlflow
from dropout_testing.processes import free_port, running, wait_until

LOAD = """
import importlib.util, json, sys
import mlflow, numpy
assert importlib.util.find_spec("dropout_trainer") is None
model = mlflow.pyfunc.load_model(sys.argv[1])
rows = numpy.linspace(-2, 2, 4 * 30, dtype="float32").reshape(4, 30)
first, second, alone = model.predict(rows), model.predict(rows), model.predict(rows[:1])
print(json.dumps([numpy.asarray(answer).tolist() for answer in (first, second, alone)]))
"""


@pytest.fixture(scope="module")
def uri(mlflow: ClusterMlflow) -> str:
    job = cluster.apply_sample("breast-cancer-mlp", cluster.new_namespace("serving"))
    return str(job.reaches("Succeeded")["model"]["uri"])


def clean(mlflow: ClusterMlflow) -> dict[str, str]:
    """This test's environment without our packages, signed in to the cluster's MLflow."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return environment | {
        "PATH": f"{Path(sys.executable).parent}:{environment['PATH']}",  # mlflow starts uvicorn by name
        "MLFLOW_TRACKING_URI": mlflow.url, "MLFLOW_TRACKING_USERNAME": mlflow.username, "MLFLOW_TRACKING_PASSWORD": mlflow.password,
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false", "MLFLOW_DISABLE_TELEMETRY": "true",
    }


def test_it_loads_and_repeats_itself(uri: str, mlflow: ClusterMlflow, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", LOAD, uri], env=clean(mlflow), cwd=tmp_path, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr[-2000:]
    first, second, alone = json.loads(done.stdout.splitlines()[-1])
    assert first == second
    assert alone[0] == pytest.approx(first[0], abs=1e-4)
    assert len(first) == 4


def test_it_answers_over_http(uri: str, mlflow: ClusterMlflow, tmp_path: Path) -> None:
    port = free_port()
    command = [Path(sys.executable).parent / "mlflow", "models", "serve", "-m", uri, "--env-manager", "local", "--port", str(port)]
    url = f"http://127.0.0.1:{port}"

    def alive() -> bool:
        try:
            with urllib.request.urlopen(f"{url}/ping", timeout=1) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def ask() -> object:
        body = json.dumps({"inputs": [[0.5] * 30, [-0.5] * 30]}).encode()
        request = urllib.request.Request(f"{url}/invocations", body, headers={"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read())["predictions"]

    with running(command, tmp_path / "serve.log", clean(mlflow)) as process:
        wait_until("the model server", alive, 180, process)
        first = ask()
        assert len(first) == 2  # type: ignore[arg-type]
        assert ask() == first
