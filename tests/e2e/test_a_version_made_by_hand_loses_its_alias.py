"""A model registered around the gate by somebody who may, as a notebook would: the bundled MLflow serves it to nobody."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from dropout_testing import cluster
from dropout_testing.mlflow_client import ClusterMlflow

pytestmark = pytest.mark.alone
BY_HAND = """
import sys
import mlflow, torch
from mlflow import MlflowClient
network = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 2)).train()
mlflow.set_experiment(sys.argv[1])
mlflow.pytorch.log_model(network, name="model", registered_model_name=sys.argv[1], input_example=torch.ones(2, 4).numpy())
MlflowClient().set_registered_model_alias(sys.argv[1], "champion", "1")
"""
NEVER = "operator.resyncSeconds=86400"
WAYS = {
    "MLflow calls": ["--set", NEVER],
    "the operator looks": ["--set", "registry.webhook.enabled=false", "--set", "operator.resyncSeconds=10"],
}


@pytest.fixture(params=WAYS)
def watched(request: pytest.FixtureRequest) -> Iterator[ClusterMlflow]:
    """The chart with one of two ways to find out; as it was afterwards."""
    cluster.install(*WAYS[request.param])
    yield ClusterMlflow.of_cluster()
    cluster.install()


def register(model: str, mlflow: ClusterMlflow, folder: Path) -> None:
    environment = {**os.environ, "MLFLOW_TRACKING_URI": mlflow.url, "MLFLOW_DISABLE_TELEMETRY": "true"}
    environment |= {"MLFLOW_TRACKING_USERNAME": mlflow.username, "MLFLOW_TRACKING_PASSWORD": mlflow.password}
    command = [sys.executable, "-c", BY_HAND, model]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]


def aliases(model: str, mlflow: ClusterMlflow) -> dict[str, str]:
    found = mlflow.request("GET", "2.0/mlflow/registered-models/get", name=model)["registered_model"].get("aliases", [])
    return {item["alias"]: str(item["version"]) for item in found}


def told(model: str) -> list[str]:
    selector = "reason=VersionQuarantined"
    text = cluster.kubectl("get", "events", "-n", cluster.OPERATOR_NAMESPACE, "--field-selector", selector, "-o", "json")
    return [event["message"] for event in json.loads(text)["items"] if f"models:/{model}/1 " in event["message"]]


def test_and_what_the_gate_registered_keeps_its_own(watched: ClusterMlflow, namespace: str, tmp_path: Path) -> None:
    job = cluster.apply_sample("breast-cancer-mlp", namespace, lambda raw: raw["spec"].setdefault("export", {}).update(alias="champion"))
    gated, by_hand = job.reaches("Succeeded")["model"]["name"], f"{namespace}.by-hand"
    register(by_hand, watched, tmp_path)

    cluster.eventually("the alias to go", lambda: aliases(by_hand, watched) == {}, 120)
    (version,) = watched.versions(by_hand)
    tags = {tag["key"]: tag["value"] for tag in version.get("tags", [])}
    assert "it has no tag dropout.verdict" in tags["dropout.quarantined"]
    cluster.eventually("the Event", lambda: told(by_hand), 60)
    (version,) = watched.versions(gated)
    assert aliases(gated, watched) == {"champion": version["version"]}
    log = cluster.kubectl("logs", "deploy/dropout-operator", "-n", cluster.OPERATOR_NAMESPACE)
    assert "unsupported URI" not in log
