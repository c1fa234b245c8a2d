"""The init container's program on a database of its own: one webhook, whatever was there, under whatever key."""

import base64
import contextlib
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from dropout_operator.registry import EVENTS, WEBHOOK

PROGRAM = Path(__file__).parents[2] / "charts/dropout-operator/files/webhook.py"
URL = "http://operator.example.com:8080/hooks/mlflow"


def tell(database: Path, *url: str, key: int = 0) -> str:
    fernet = base64.urlsafe_b64encode(bytes([key]) * 32).decode()
    environment = {
        **os.environ, "WEBHOOK_SECRET": "of-the-tests", "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https",
        "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true", "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": fernet,
    }
    command = [sys.executable, PROGRAM, f"sqlite:///{database}", *url]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=240).stdout


def rows(database: Path, query: str) -> list[tuple[str, ...]]:
    with contextlib.closing(sqlite3.connect(database)) as connection:
        return connection.execute(query).fetchall()


@pytest.mark.timeout(600)
def test_there_is_one_webhook_and_it_is_the_latest(tmp_path: Path) -> None:
    database = tmp_path / "mlflow.db"
    assert tell(database, "http://old.example.com/hooks/mlflow") == "MLflow calls http://old.example.com/hooks/mlflow\n"
    for _ in range(2):
        tell(database, URL, key=1)  # the Secret was lost and made anew: what the old key wrote cannot be read
    assert rows(database, "SELECT name, url, status, workspace FROM webhooks") == [(WEBHOOK, URL, "ACTIVE", "default")]
    assert set(rows(database, "SELECT entity || '.' || action FROM webhook_events")) == {(event,) for event in EVENTS}
    assert "of-the-tests" not in str(rows(database, "SELECT secret FROM webhooks"))

    assert tell(database) == "MLflow calls nobody\n"
    assert rows(database, "SELECT url FROM webhooks") == rows(database, "SELECT entity FROM webhook_events") == []
