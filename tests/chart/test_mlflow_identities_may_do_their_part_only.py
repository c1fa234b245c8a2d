"""The chart's identities against a real MLflow server: what each may do, and what it may not."""

import importlib.util
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import requests
import yaml

from dropout_api.names import trainer_username
from dropout_operator.identities import trainer_password

CHART = Path(__file__).parents[2] / "charts" / "dropout-operator"
KEY = b"a-key-of-the-trainers-passwords"
pytestmark = [pytest.mark.xdist_group("mlflow-server"), pytest.mark.timeout(180)]


@dataclass
class Person:
    """A user of the server, and the status codes that it answers them."""

    base: str
    name: str
    password: str

    def call(self, method: str, path: str, **fields: Any) -> requests.Response:
        body = {"params": fields} if method == "GET" else {"json": fields}
        return requests.request(method, f"{self.base}/api/{path}", auth=(self.name, self.password), timeout=30, **body)

    def post(self, path: str, **fields: Any) -> requests.Response:
        return self.call("POST", path, **fields)

    def get(self, path: str, **fields: Any) -> requests.Response:
        return self.call("GET", path, **fields)

    def put_artifact(self, path: str) -> int:
        url = f"{self.base}/api/2.0/mlflow-artifacts/artifacts/{path}"
        return requests.put(url, data=b"x", auth=(self.name, self.password), timeout=30).status_code

    def get_artifact(self, path: str) -> int:
        url = f"{self.base}/api/2.0/mlflow-artifacts/artifacts/{path}"
        return requests.get(url, auth=(self.name, self.password), timeout=30).status_code


@dataclass
class Server:
    folder: Path
    port: int
    people: dict[str, Person] = field(default_factory=dict)
    experiments: dict[str, str] = field(default_factory=dict)
    runs: dict[str, str] = field(default_factory=dict)

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def environment(folder: Path) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW", "PYTHON"))}
    return inherited | {
        "MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"), "MLFLOW_FLASK_SERVER_SECRET_KEY": "not-a-secret-here",
        "MLFLOW_AUTH_ADMIN_USERNAME": "admin", "MLFLOW_DISABLE_TELEMETRY": "true", "GIT_PYTHON_REFRESH": "quiet", "HOME": str(folder),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }


def bootstrap(folder: Path) -> str:
    """Runs the init container's program as the chart does; what it said."""
    command = [sys.executable, str(CHART / "files" / "identities.py"), str(folder / "identities")]
    return subprocess.run(command, env=environment(folder), check=True, capture_output=True, text=True, timeout=90).stdout


def write_identities(folder: Path, passwords: dict[str, str], key: bytes = KEY) -> None:
    for name, password in passwords.items():
        place = folder / "identities" / name
        place.mkdir(parents=True, exist_ok=True)
        (place / "username").write_text(name)
        (place / "password").write_text(password)
    (folder / "identities" / "operator" / "trainer-key").write_bytes(key)


PASSWORDS = {name: f"{name}-has-a-long-password" for name in ("admin", "operator", "verifier")}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("mlflow")
    (folder / "data").mkdir()
    settings = (CHART / "files" / "auth.ini").read_text()
    assert "sqlite:////data/auth.db" in settings
    (folder / "auth.ini").write_text(settings.replace("/data/", f"{folder}/data/"))
    write_identities(folder, PASSWORDS)
    bootstrap(folder)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--backend-store-uri", f"sqlite:///{folder}/data/mlflow.db", "--artifacts-destination", f"{folder}/data/artifacts",
        "--app-name", "basic-auth", "--enable-workspaces",
    ]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, env=environment(folder), stdout=log, stderr=log, start_new_session=True)
        try:
            result = Server(folder, port)
            wait_until_ready(process, result)
            furnish(result)
            yield result
        finally:
            os.killpg(process.pid, 15)
            process.wait(30)


def wait_until_ready(process: subprocess.Popen[bytes], server: Server) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            if requests.get(f"{server.base}/health", timeout=2).ok:
                return
        except requests.ConnectionError:
            time.sleep(0.3)
    pytest.fail((server.folder / "log").read_text()[-3000:])


def furnish(server: Server) -> None:
    """Two namespaces with an experiment and a run each, made as the operator makes them."""
    operator = Person(server.base, "operator", PASSWORDS["operator"])
    server.people = {name: Person(server.base, name, password) for name, password in PASSWORDS.items()}
    for namespace in ("a", "b"):
        user, password = trainer_username(namespace), trainer_password(KEY, namespace)
        made = operator.post("2.0/mlflow/experiments/create", name=f"{namespace}.fashion")
        assert made.status_code == 200, made.text
        server.experiments[namespace] = experiment = made.json()["experiment_id"]
        assert operator.post("2.0/mlflow/users/create", username=user, password=password).status_code == 200
        granted = operator.post(
            "3.0/mlflow/users/permissions/grant", username=user, resource_type="experiment", resource_id=experiment, permission="EDIT",
        )
        assert granted.status_code == 200, granted.text
        run = operator.post("2.0/mlflow/runs/create", experiment_id=experiment)
        assert run.status_code == 200, run.text
        server.runs[namespace] = run.json()["run"]["info"]["run_id"]
        server.people[f"trainer {namespace}"] = Person(server.base, user, password)
    assert server.people["verifier"].post("2.0/mlflow/registered-models/create", name="b.theirs").status_code == 200


def artifact(server: Server, namespace: str) -> str:
    return f"{server.experiments[namespace]}/{server.runs[namespace]}/artifacts/candidate/eval.pt2"


def batch(person: Person, run: str) -> int:
    metric = {"key": "val_loss", "value": 1.0, "timestamp": 1, "step": 1}
    return person.post("2.0/mlflow/runs/log-batch", run_id=run, metrics=[metric]).status_code


def test_trainer_writes_its_own_run(server: Server) -> None:
    trainer = server.people["trainer a"]
    assert batch(trainer, server.runs["a"]) == 200
    assert trainer.get("2.0/mlflow/runs/get", run_id=server.runs["a"]).status_code == 200
    assert trainer.put_artifact(artifact(server, "a")) == 200


def test_trainer_neither_reads_nor_writes_another_namespaces_run(server: Server) -> None:
    trainer = server.people["trainer a"]
    assert server.people["trainer b"].put_artifact(artifact(server, "b")) == 200
    assert batch(trainer, server.runs["b"]) == 403
    assert trainer.get("2.0/mlflow/runs/get", run_id=server.runs["b"]).status_code == 403
    assert trainer.get("2.0/mlflow/experiments/get", experiment_id=server.experiments["b"]).status_code == 403
    assert trainer.put_artifact(artifact(server, "b")) == 403
    assert trainer.get_artifact(artifact(server, "b")) == 403
    found = trainer.post("2.0/mlflow/runs/search", experiment_ids=list(server.experiments.values()))
    assert found.status_code == 403 or {run["info"]["experiment_id"] for run in found.json().get("runs", [])} <= {server.experiments["a"]}


def test_trainer_cannot_touch_the_registry(server: Server) -> None:
    trainer, run = server.people["trainer a"], server.runs["a"]
    assert trainer.post("2.0/mlflow/registered-models/create", name="a.mine").status_code == 403
    assert trainer.post("2.0/mlflow/model-versions/create", name="b.theirs", source=f"runs:/{run}/x", run_id=run).status_code == 403
    assert trainer.post("2.0/mlflow/registered-models/alias", name="b.theirs", alias="champion", version="1").status_code == 403
    assert trainer.post("2.0/mlflow/registered-models/set-tag", name="b.theirs", key="k", value="v").status_code == 403


def test_trainer_creates_no_experiment_user_or_grant_and_deletes_nothing(server: Server) -> None:
    trainer = server.people["trainer a"]
    assert trainer.post("2.0/mlflow/experiments/create", name="b.stolen").status_code == 403
    assert trainer.post("2.0/mlflow/experiments/delete", experiment_id=server.experiments["a"]).status_code == 403
    assert trainer.post("2.0/mlflow/runs/delete", run_id=server.runs["a"]).status_code == 403
    assert trainer.post("2.0/mlflow/users/create", username="friend", password="a-long-password").status_code == 403
    for namespace in ("a", "b"):
        granted = trainer.post(
            "3.0/mlflow/users/permissions/grant", username="trainer.a", resource_type="experiment",
            resource_id=server.experiments[namespace], permission="MANAGE",
        )
        assert granted.status_code == 403


def test_operator_ends_and_tags_any_run_and_is_no_administrator(server: Server) -> None:
    operator = server.people["operator"]
    made_by_admin = server.people["admin"].post("2.0/mlflow/experiments/create", name="c.older").json()["experiment_id"]
    run = server.people["admin"].post("2.0/mlflow/runs/create", experiment_id=made_by_admin).json()["run"]["info"]["run_id"]
    assert operator.post("2.0/mlflow/runs/set-tag", run_id=run, key="dropout.phase", value="Failed").status_code == 200
    assert operator.post("2.0/mlflow/runs/update", run_id=run, status="FAILED").status_code == 200
    assert operator.post("2.0/mlflow/experiments/set-experiment-tag", experiment_id=made_by_admin, key="k", value="v").status_code == 200
    found = operator.post("2.0/mlflow/runs/search", experiment_ids=[made_by_admin])
    assert [item["info"]["run_id"] for item in found.json()["runs"]] == [run]
    granted = operator.post(
        "3.0/mlflow/users/permissions/grant", username="trainer.a", resource_type="experiment",
        resource_id=made_by_admin, permission="READ",
    )
    assert granted.status_code == 200, granted.text
    assert operator.call("PATCH", "2.0/mlflow/users/update-admin", username="operator", is_admin=True).status_code == 403
    assert operator.call("PATCH", "2.0/mlflow/users/update-password", username="admin", password="mine-from-now-on").status_code == 403


def test_verifier_reads_candidates_reports_and_registers(server: Server) -> None:
    verifier, run = server.people["verifier"], server.runs["a"]
    assert server.people["trainer a"].put_artifact(artifact(server, "a")) == 200
    assert verifier.get_artifact(artifact(server, "a")) == 200
    assert verifier.put_artifact(f"{server.experiments['a']}/{run}/artifacts/gate/report.json") == 200
    assert verifier.post("2.0/mlflow/runs/set-tag", run_id=run, key="dropout.verdict", value="Passed").status_code == 200
    own = verifier.post("2.0/mlflow/experiments/create", name="a:verified")
    assert own.status_code == 200, own.text
    experiment = own.json()["experiment_id"]
    copy = verifier.post("2.0/mlflow/runs/create", experiment_id=experiment).json()["run"]["info"]["run_id"]
    assert verifier.put_artifact(f"{experiment}/{copy}/artifacts/model/eval.pt2") == 200
    assert verifier.post("2.0/mlflow/registered-models/create", name="a.fashion").status_code == 200
    for name in ("a.fashion", "b.theirs"):
        made = verifier.post("2.0/mlflow/model-versions/create", name=name, source=f"runs:/{copy}/model", run_id=copy)
        assert made.status_code == 200, made.text
        assert verifier.post("2.0/mlflow/registered-models/alias", name=name, alias="champion", version="1").status_code == 200
        tagged = verifier.post("2.0/mlflow/model-versions/set-tag", name=name, version="1", key="dropout.sha256", value="0")
        assert tagged.status_code == 200
    assert server.people["trainer a"].put_artifact(f"{experiment}/{copy}/artifacts/model/eval.pt2") == 403


def test_verifier_writes_a_model_that_someone_else_made(server: Server) -> None:
    assert server.people["admin"].post("2.0/mlflow/registered-models/create", name="c.older").status_code == 200
    run = server.runs["a"]
    made = server.people["verifier"].post("2.0/mlflow/model-versions/create", name="c.older", source=f"runs:/{run}/x", run_id=run)
    assert made.status_code == 200, made.text
    moved = server.people["verifier"].post("2.0/mlflow/registered-models/alias", name="c.older", alias="champion", version="1")
    assert moved.status_code == 200, moved.text


def test_verifier_makes_no_users_or_grants(server: Server) -> None:
    verifier = server.people["verifier"]
    assert verifier.post("2.0/mlflow/users/create", username="friend", password="a-long-password").status_code == 403
    granted = verifier.post(
        "3.0/mlflow/users/permissions/grant", username="trainer.a", resource_type="experiment",
        resource_id=server.experiments["b"], permission="EDIT",
    )
    assert granted.status_code == 403


def test_without_a_password_nothing_is_served(server: Server) -> None:
    answer = requests.get(f"{server.base}/api/2.0/mlflow/experiments/get", params={"experiment_id": "0"}, timeout=30)
    assert answer.status_code == 401


def test_server_starts_without_the_administrators_password_and_without_complaint(server: Server) -> None:
    log = (server.folder / "log").read_text()
    assert "insecure" not in log
    assert "Traceback" not in log


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """A folder for a database of its own."""
    (tmp_path / "data").mkdir()
    (tmp_path / "auth.ini").write_text((CHART / "files" / "auth.ini").read_text().replace("/data/", f"{tmp_path}/data/"))
    return tmp_path


def test_identities_are_made_once_and_follow_their_secrets(empty: Path) -> None:
    write_identities(empty, PASSWORDS)
    assert bootstrap(empty).splitlines() == ["creating user admin", "creating user operator", "creating user verifier"]
    assert bootstrap(empty) == ""
    write_identities(empty, PASSWORDS | {"verifier": "another-long-password"})
    assert bootstrap(empty).splitlines() == ["changing the password of user verifier"]


def test_trainers_passwords_follow_the_key(server: Server) -> None:
    """Comes last: it changes what the others rely on."""
    write_identities(server.folder, PASSWORDS, key=b"another-key")
    assert bootstrap(server.folder).splitlines() == ["changing the password of user trainer.a", "changing the password of user trainer.b"]
    renewed = Person(server.base, "trainer.a", trainer_password(b"another-key", "a"))
    assert batch(renewed, server.runs["a"]) == 200


def load_identities() -> ModuleType:
    """The program's text without its MLflow imports, which warn."""
    spec = importlib.util.spec_from_loader("identities", loader=None)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    source = (CHART / "files" / "identities.py").read_text()
    kept = [line for line in source.splitlines() if not line.startswith("from mlflow")]
    exec("from __future__ import annotations\n" + "\n".join(kept), module.__dict__)
    return module


@pytest.mark.parametrize("namespace", ["default", "team-a", "x" * 63])
def test_chart_and_operator_derive_the_same_trainer_password(namespace: str) -> None:
    assert load_identities().trainer_password(KEY, namespace) == trainer_password(KEY, namespace)


def test_the_server_of_this_test_is_started_as_the_chart_starts_it(render: Any) -> None:
    (deployment,) = [item for item in render() if item["kind"] == "Deployment" and item["metadata"]["name"].endswith("mlflow")]
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    line = " ".join(container["command"] + container.get("args", []))
    for option in ("--app-name basic-auth", "--enable-workspaces", "--workers 1", "--artifacts-destination"):
        assert option in line.replace("=", " "), yaml.safe_dump(container)
