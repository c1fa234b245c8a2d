"""A real MLflow server with passwords on and the chart's own identities, on loopback, with SQLite and files in a folder."""

import base64
import contextlib
import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dropout_testing.processes import free_port, running, wait_until

CHART_FILES = Path(__file__).resolve().parents[3] / "charts/dropout-operator/files"
TRAINER_KEY = "trainer-key-of-the-tests"
PASSWORDS = {"admin": "password-of-admin", "operator": "password-of-operator", "verifier": "password-of-verifier"}

WEBHOOK_ENVIRONMENT = {
    "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https", "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
    "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": base64.urlsafe_b64encode(bytes(32)).decode(),
}


@dataclass
class MlflowServer:
    """A server that runs, and its users' ways in."""

    url: str

    def operator_environment(self) -> dict[str, str]:
        """What the chart sets for the operator."""
        return {
            "DROPOUT_MLFLOW_URI": self.url, "DROPOUT_MLFLOW_AUTH": "true", "DROPOUT_TRAINER_KEY": TRAINER_KEY,
            "MLFLOW_TRACKING_USERNAME": "operator", "MLFLOW_TRACKING_PASSWORD": PASSWORDS["operator"],
        }

    def client_environment(self, user: str) -> dict[str, str]:
        return {
            "MLFLOW_TRACKING_URI": self.url, "MLFLOW_TRACKING_USERNAME": user, "MLFLOW_TRACKING_PASSWORD": PASSWORDS[user],
        }

    @contextlib.contextmanager
    def acting_as(self, user: str) -> Iterator[Any]:
        """An MlflowClient of this process that is this user."""
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.client_environment(user).items():
                patch.setenv(name, value)
            from mlflow import MlflowClient

            yield MlflowClient(self.url, self.url)

    def request(self, method: str, path: str, body: Any = None, user: str = "admin", password: str | None = None) -> dict[str, Any]:
        """JSON of an API path as `2.0/mlflow/runs/search`. Raises urllib's HTTPError."""
        login = base64.b64encode(f"{user}:{password or PASSWORDS[user]}".encode()).decode()
        request = urllib.request.Request(
            f"{self.url}/api/{path}", json.dumps(body).encode() if body is not None else None, method=method,
            headers={"Authorization": f"Basic {login}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            result: dict[str, Any] = json.loads(answer.read() or b"{}")
            return result

    def runs_of(self, uid: str) -> list[dict[str, Any]]:
        """Every run that carries a job's UID, in any experiment."""
        experiments = self.request("POST", "2.0/mlflow/experiments/search", {"max_results": 1000}).get("experiments", [])
        ids = [experiment["experiment_id"] for experiment in experiments]
        body = {"experiment_ids": ids, "filter": f"tags.`dropout.uid` = '{uid}'"}
        return list(self.request("POST", "2.0/mlflow/runs/search", body).get("runs", []))


@dataclass(frozen=True)
class Webhook:
    """Whom the server calls when its registry is written."""

    url: str
    secret: str


@contextlib.contextmanager
def mlflow_server(folder: Path, port: int | None = None, webhook: Webhook | None = None) -> Iterator[MlflowServer]:
    """Starts a server on the data of `folder`, which it makes where there is none; ends it, and keeps the data."""
    folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    server = MlflowServer(f"http://127.0.0.1:{port}")
    environment = {
        "MLFLOW_AUTH_CONFIG_PATH": str(_auth_config(folder)), "MLFLOW_FLASK_SERVER_SECRET_KEY": "of-the-tests",
        "MLFLOW_AUTH_ADMIN_USERNAME": "admin", "MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORDS["admin"],
        "MLFLOW_DISABLE_TELEMETRY": "true", "GIT_PYTHON_REFRESH": "quiet",
    }
    _make_identities(folder, environment)
    if webhook:
        environment |= WEBHOOK_ENVIRONMENT
        _make_webhook(folder, webhook, environment)
    command = [
        Path(sys.executable).parent / "mlflow", "server", "--app-name", "basic-auth", "--enable-workspaces",
        "--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", folder / "artifacts",
        "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
    ]
    with running(command, folder / "mlflow.log", environment) as process:
        wait_until("MLflow", lambda: _healthy(server.url), 240, process)
        yield server


def _auth_config(folder: Path) -> Path:
    path = folder / "auth.ini"
    text = (CHART_FILES / "auth.ini").read_text()
    path.write_text(re.sub(r"(?m)^database_uri = .*$", f"database_uri = sqlite:///{folder}/auth.db", text))
    return path


def _make_identities(folder: Path, environment: dict[str, str]) -> None:
    secrets = folder / "identities"
    for user, password in PASSWORDS.items():
        (secrets / user).mkdir(parents=True, exist_ok=True)
        (secrets / user / "username").write_text(user)
        (secrets / user / "password").write_text(password)
    (secrets / "operator/trainer-key").write_text(TRAINER_KEY)
    command = [sys.executable, CHART_FILES / "identities.py", secrets]
    subprocess.run(command, check=True, env={**os.environ, **environment}, capture_output=True)


def _make_webhook(folder: Path, webhook: Webhook, environment: dict[str, str]) -> None:
    command = [sys.executable, CHART_FILES / "webhook.py", f"sqlite:///{folder}/mlflow.db", webhook.url]
    secret = {"WEBHOOK_SECRET": webhook.secret}
    subprocess.run(command, check=True, env={**os.environ, **environment, **secret}, capture_output=True)


def _healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=1) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
