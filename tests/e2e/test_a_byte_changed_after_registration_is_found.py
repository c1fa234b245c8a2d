"""Someone who may write artifacts changes a registered model: the audit finds the file, and the operator takes the alias."""

import json
import os
import subprocess
import sys
from pathlib import Path

from dropout_testing import cluster
from dropout_testing.mlflow_client import ClusterMlflow

FLIP = """
import sys
from pathlib import Path
import mlflow
from mlflow import MlflowClient
copy, folder = sys.argv[1:]
path = Path(mlflow.artifacts.download_artifacts(artifact_uri=f"models:/{copy}", dst_path=folder)) / "artifacts" / "eval.pt2"
content = bytearray(path.read_bytes())
content[len(content) // 2] ^= 1
changed = Path(folder) / "changed" / "artifacts"
changed.mkdir(parents=True)
(changed / "eval.pt2").write_bytes(content)
MlflowClient().log_model_artifacts(copy, str(changed.parent))
"""


def flip_a_byte(copy: str, mlflow: ClusterMlflow, folder: Path) -> None:
    environment = {**os.environ, "MLFLOW_TRACKING_URI": mlflow.url, "MLFLOW_DISABLE_TELEMETRY": "true"}
    environment |= {"MLFLOW_TRACKING_USERNAME": mlflow.username, "MLFLOW_TRACKING_PASSWORD": mlflow.password}
    done = subprocess.run([sys.executable, "-c", FLIP, copy, str(folder)], env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]


def audit(model: str) -> None:
    """Runs the chart's audit now, of one model."""
    where = ("-n", cluster.OPERATOR_NAMESPACE)
    made = cluster.kubectl("create", "job", "audit-now", "--from=cronjob/dropout-operator-audit", *where, "--dry-run=client", "-o", "json")
    job = json.loads(made)
    (container,) = job["spec"]["template"]["spec"]["containers"]
    container["command"] += ["--model", model]
    cluster.kubectl("create", "-f", "-", stdin=json.dumps(job))


def aliases(model: str, mlflow: ClusterMlflow) -> dict[str, str]:
    found = mlflow.request("GET", "2.0/mlflow/registered-models/get", name=model)["registered_model"].get("aliases", [])
    return {item["alias"]: str(item["version"]) for item in found}


def test_and_costs_the_alias(namespace: str, tmp_path: Path) -> None:
    mlflow = ClusterMlflow.of_cluster()
    job = cluster.apply_sample("breast-cancer-mlp", namespace, lambda raw: raw["spec"].setdefault("export", {}).update(alias="champion"))
    model = job.reaches("Succeeded")["model"]["name"]
    (version,) = mlflow.versions(model)
    assert aliases(model, mlflow) == {"champion": version["version"]}

    flip_a_byte(version["source"].removeprefix("models:/"), mlflow, tmp_path)
    audit(model)

    try:
        cluster.eventually("the alias to go", lambda: aliases(model, mlflow) == {}, 180)
    finally:
        cluster.kubectl("delete", "job", "audit-now", "-n", cluster.OPERATOR_NAMESPACE, "--ignore-not-found")
    (version,) = mlflow.versions(model)
    tags = {tag["key"]: tag["value"] for tag in version.get("tags", [])}
    assert "'artifacts/eval.pt2' was changed" in tags["dropout.quarantined"]
