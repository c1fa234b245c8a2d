"""The cluster's own MLflow, asked over HTTP as its different users."""

import base64
import json
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import Any

from dropout_testing import cluster


@dataclass(frozen=True)
class ClusterMlflow:
    """The bundled MLflow, as this machine reaches it."""

    url: str
    username: str
    password: str

    @classmethod
    def of_cluster(cls) -> "ClusterMlflow":
        """As its administrator."""
        service = cluster.get("service", cluster.MLFLOW_SERVICE, cluster.OPERATOR_NAMESPACE)
        assert service is not None
        login = cluster.secret(cluster.MLFLOW_ADMIN_SECRET, cluster.OPERATOR_NAMESPACE)
        return cls(f"http://{service['spec']['clusterIP']}:{service['spec']['ports'][0]['port']}", login["username"], login["password"])

    def acting_as(self, username: str, password: str) -> "ClusterMlflow":
        return ClusterMlflow(self.url, username, password)

    def request(self, method: str, path: str, body: Any = None, /, **query: str) -> dict[str, Any]:
        """JSON of an API path as `2.0/mlflow/runs/get`. Raises urllib's HTTPError."""
        login = base64.b64encode(f"{self.username}:{self.password}".encode()).decode()
        url = f"{self.url}/api/{path}" + (f"?{urllib.parse.urlencode(query)}" if query else "")
        request = urllib.request.Request(
            url, json.dumps(body).encode() if body is not None else None, method=method,
            headers={"Authorization": f"Basic {login}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            result: dict[str, Any] = json.loads(answer.read() or b"{}")
            return result

    def status(self, method: str, path: str, body: Any = None, /, **query: str) -> int:
        """The HTTP status of the answer."""
        try:
            self.request(method, path, body, **query)
        except urllib.error.HTTPError as error:
            error.close()
            return error.code
        return 200

    def refuses(self, method: str, path: str, body: Any = None, /, **query: str) -> bool:
        """Whether the server says 403."""
        return self.status(method, path, body, **query) == 403

    def run(self, run_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.request("GET", "2.0/mlflow/runs/get", run_id=run_id)["run"]
        return found

    def state(self, run_id: str) -> str:
        return str(self.run(run_id)["info"]["status"])

    def params(self, run_id: str) -> dict[str, str]:
        return {item["key"]: item["value"] for item in self.run(run_id)["data"].get("params", [])}

    def history(self, run_id: str, metric: str) -> list[tuple[int, float]]:
        """Steps and values, in order of steps."""
        found = self.request("GET", "2.0/mlflow/metrics/get-history", run_id=run_id, metric_key=metric, max_results="1000")
        return sorted((int(point.get("step", 0)), point["value"]) for point in found.get("metrics", []))

    def artifacts(self, run_id: str, path: str = "") -> list[str]:
        query = {"run_id": run_id} | ({"path": path} if path else {})
        return [item["path"] for item in self.request("GET", "2.0/mlflow/artifacts/list", **query).get("files", [])]

    def artifact(self, run_id: str, path: str) -> bytes:
        """An artifact's bytes."""
        login = base64.b64encode(f"{self.username}:{self.password}".encode()).decode()
        query = urllib.parse.urlencode({"run_uuid": run_id, "path": path})
        request = urllib.request.Request(f"{self.url}/get-artifact?{query}", headers={"Authorization": f"Basic {login}"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            found: bytes = answer.read()
            return found

    def runs_of(self, uid: str) -> list[dict[str, Any]]:
        """The job's own runs: every one that the operator made for its UID."""
        experiments = self.request("POST", "2.0/mlflow/experiments/search", {"max_results": 1000}).get("experiments", [])
        ids = [item["experiment_id"] for item in experiments if not item["name"].endswith(":verified")]
        if not ids:
            return []
        body = {"experiment_ids": ids, "filter": f"tags.`dropout.uid` = '{uid}'"}
        return list(self.request("POST", "2.0/mlflow/runs/search", body).get("runs", []))

    def versions(self, model: str) -> list[dict[str, Any]]:
        body = {"filter": f"name = '{model}'", "max_results": "100"}
        return list(self.request("GET", "2.0/mlflow/model-versions/search", **body).get("model_versions", []))
