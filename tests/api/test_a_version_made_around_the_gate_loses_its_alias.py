"""The operator against a real registry: what did not come through the gate is served by nobody, told to people, and counted."""

import asyncio
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from dropout_testing.control_plane import ControlPlane, Object
from dropout_testing.jobs import SYSTEM, create
from dropout_testing.mlflow_server import MlflowServer, Webhook, mlflow_server
from dropout_testing.operators import OperatorProcess, operating
from dropout_testing.processes import free_port, wait_until
from dropout_testing.signing import SigningKey, folder_with, statement
from dropout_testing.versions import ALIAS, Registrar, gate_tags
from dropout_testing.worlds import SETTINGS

from dropout_operator.mlflow_calls import TrackingError
from dropout_operator.registry import EVENTS, Registry

SECRET = "secret-of-the-tests"
NEVER = "86400"
Guarding = Callable[..., OperatorProcess]


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def guarded(port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """A server that calls the operator."""
    webhook = Webhook(f"http://127.0.0.1:{port}/hooks/mlflow", SECRET)
    with mlflow_server(tmp_path_factory.mktemp("mlflow"), webhook=webhook) as server:
        yield server


@pytest.fixture(scope="module")
def registrar(guarded: MlflowServer, tmp_path_factory: pytest.TempPathFactory) -> Registrar:
    return Registrar(guarded, SigningKey.new(), tmp_path_factory.mktemp("models"))


@pytest.fixture
def guarding(plane: ControlPlane, guarded: MlflowServer, registrar: Registrar, port: int, namespace: str, tmp_path: Path) -> Guarding:
    """Makes an operator that guards the models of the test's namespace."""

    def make(**changes: str) -> OperatorProcess:
        certificate = tmp_path / "verify.pem"
        certificate.write_bytes(registrar.key.certificate)
        environment = {
            "DROPOUT_REGISTRY_GUARD": "Enforce", "DROPOUT_REGISTRY_MODELS": f'["{namespace}.*"]', "DROPOUT_WEBHOOK_SECRET": SECRET,
            "DROPOUT_VERIFYING_KEY": str(certificate), "DROPOUT_RESYNC_SECONDS": NEVER,
        }
        return OperatorProcess(plane, guarded, tmp_path / "operator", environment=environment | changes, port=port)

    return make


def eventually(what: str, ready: Callable[[], bool]) -> None:
    wait_until(what, ready, 180)


def events(plane: ControlPlane, namespace: str) -> list[Object]:
    found: list[Object] = plane.request("GET", f"/api/v1/namespaces/{namespace}/events")["items"]
    return [event for event in found if event["reason"] == "VersionQuarantined"]


def counted(operator: OperatorProcess, model: str) -> float:
    found = re.search(rf'dropout_quarantined_versions{{model="{re.escape(model)}"}} (\S+)', operator.metrics())
    return float(found[1]) if found else 0.0


def unjudged(log: Path) -> list[str]:
    """What the operator could not judge, but for a server that was slow to answer: it asks again."""
    return [line for line in log.read_text().splitlines() if "could not be judged" in line and "time" not in line.lower()]


def test_within_a_call_of_mlflow(guarding: Guarding, registrar: Registrar, plane: ControlPlane, namespace: str) -> None:
    """No periodic look comes within this test."""
    model = f"{namespace}.digits"
    with operating(guarding()) as operator:
        sound = registrar.by_gate(model)
        eventually("the call", lambda: "dropout_registry_webhook 1.0" in operator.metrics())
        registrar.alias(model, sound, "fallback")
        number = registrar.by_hand(model)

        eventually("the alias to go", lambda: ALIAS not in registrar.aliases(model))
        eventually("the tag", lambda: "dropout.quarantined" in registrar.tags(model, number))
        assert "it has no tag dropout.verdict" in registrar.tags(model, number)["dropout.quarantined"]
        assert registrar.aliases(model) == {"fallback": sound}
        assert "dropout.quarantined" not in registrar.tags(model, sound)
        eventually("the metric", lambda: counted(operator, model) == 1.0)
        eventually("the Event", lambda: any(f"{model}/{number}" in event["message"] for event in events(plane, SYSTEM)))

        registrar.alias(model, number, "again")
        eventually("the new alias to go", lambda: "again" not in registrar.aliases(model))
        assert registrar.aliases(model) == {"fallback": sound}
        assert unjudged(operator.log) == []


def test_at_the_next_look_where_mlflow_does_not_call(guarding: Guarding, registrar: Registrar, plane: ControlPlane, namespace: str) -> None:
    """Both were there before the operator was. The Event is the training job's, whose model it is by name."""
    model = f"{namespace}.digits"
    job = create(plane, namespace, "digits")
    sound, number = registrar.by_gate(model), registrar.by_hand(model)
    registrar.alias(model, sound, "fallback")
    with operating(guarding(DROPOUT_WEBHOOK_SECRET="", DROPOUT_RESYNC_SECONDS="1")) as operator:
        eventually("the alias to go", lambda: registrar.aliases(model) == {"fallback": sound})
        eventually("the Event", lambda: "VersionQuarantined" in job.events())
        eventually("the metric", lambda: counted(operator, model) == 1.0)
        later = registrar.by_hand(model)
        eventually("the later one", lambda: counted(operator, model) == 2.0 and registrar.aliases(model) == {"fallback": sound})
        assert {"dropout.quarantined"} <= registrar.tags(model, number).keys() & registrar.tags(model, later).keys()
        assert unjudged(operator.log) == []


@pytest.mark.parametrize("forgery", ["copied to another experiment", "signed by another key", "another model's files"])
def test_whatever_is_forged(guarding: Guarding, registrar: Registrar, namespace: str, forgery: str, tmp_path: Path) -> None:
    model = f"{namespace}.forged"
    if forgery == "signed by another key":
        number = registrar.by_gate(model, SigningKey.new())
    else:
        text = statement(f"{namespace}.other" if forgery == "another model's files" else model)
        files = folder_with(tmp_path / "forged", text)
        registrar.key.sign(files)
        experiment = f"{namespace}:verified" if forgery == "another model's files" else "notebooks"
        number = registrar.register(model, files, experiment, gate_tags(text))
    with operating(guarding()):
        eventually("the alias to go", lambda: registrar.aliases(model) == {})
        eventually("the tag", lambda: "dropout.quarantined" in registrar.tags(model, number))


def test_a_report_changes_nothing(guarding: Guarding, registrar: Registrar, plane: ControlPlane, namespace: str) -> None:
    model = f"{namespace}.digits"
    number = registrar.by_hand(model)
    with operating(guarding(DROPOUT_REGISTRY_GUARD="Report")) as operator:
        eventually("the metric", lambda: counted(operator, model) == 1.0)
        eventually("the Event", lambda: any(f"{model}/{number}" in event["message"] for event in events(plane, SYSTEM)))
    assert registrar.aliases(model) == {ALIAS: number}
    assert registrar.tags(model, number) == {}


def test_models_that_nobody_asked_to_guard_are_left_alone(guarding: Guarding, registrar: Registrar, namespace: str) -> None:
    stranger = f"stranger-of-{namespace}"
    number = registrar.by_hand(stranger)
    registrar.by_hand(f"{namespace}.digits")
    with operating(guarding()) as operator:
        eventually("the look", lambda: counted(operator, f"{namespace}.digits") == 1.0)
    assert registrar.aliases(stranger) == {ALIAS: number}


def test_mlflow_is_asked_once_to_call_and_only_by_an_administrator(guarded: MlflowServer) -> None:
    registry = Registry(replace(SETTINGS, mlflow_uri=guarded.url))
    url = "https://operator.example.com/hooks/mlflow"
    with guarded.acting_as("operator"), pytest.raises(TrackingError, match="Permission denied"):
        asyncio.run(registry.ensure_webhook(url, SECRET))
    with guarded.acting_as("admin") as client:
        for _ in range(2):
            asyncio.run(registry.ensure_webhook(url, SECRET))
        (made,) = [hook for hook in client.list_webhooks() if hook.url == url]
        assert {str(event) for event in made.events} == set(EVENTS)
        client.delete_webhook(made.webhook_id)
