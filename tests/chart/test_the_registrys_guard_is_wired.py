"""What the chart gives to the guard of the registry: its key, MLflow's calls, the audit; to each pod no more than its part."""

import base64
import json
from typing import Any

import pytest
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from dropout_api.names import Label, Stage
from dropout_operator.manifests import SIGNING_FILES
from dropout_operator.signatures import load_keys
from dropout_operator.webhook import PATH

Objects = list[dict[str, Any]]
OWN = {"mlflow": {"trackingUri": "http://mlflow:5000", "auth": False}}


def one(objects: Objects, kind: str, name: str) -> dict[str, Any]:
    (found,) = [item for item in objects if item["kind"] == kind and item["metadata"]["name"] == f"dropout-operator{name}"]
    return found


def pod(objects: Objects, kind: str, name: str) -> dict[str, Any]:
    spec = one(objects, kind, name)["spec"]
    found: dict[str, Any] = spec.get("jobTemplate", {"spec": spec})["spec"]["template"]["spec"]
    return found


def environment(container: dict[str, Any]) -> dict[str, Any]:
    return {item["name"]: item.get("value", item.get("valueFrom")) for item in container.get("env", [])}


def operator(objects: Objects) -> dict[str, Any]:
    return environment(pod(objects, "Deployment", "")["containers"][0])


def has(objects: Objects, kind: str, name: str) -> bool:
    return any(item["kind"] == kind and item["metadata"]["name"] == f"dropout-operator{name}" for item in objects)


@pytest.fixture(scope="module")
def defaults(render: Any) -> Objects:
    return render()


def test_the_certificate_holds_the_signing_keys_public_half(defaults: Objects) -> None:
    data = {key: base64.b64decode(value) for key, value in one(defaults, "Secret", "-signing")["data"].items()}
    private = load_pem_private_key(data["signing-key.pem"], None)
    (public,) = load_keys(data["verifying-key.pem"])
    assert private.public_key().public_numbers() == public.public_numbers()  # type: ignore[union-attr]
    assert {key for key, _ in SIGNING_FILES.values()} == set(data)


def test_no_pod_of_the_chart_holds_the_signing_key(defaults: Objects) -> None:
    """Only a verify Job's has it, and the operator makes that."""
    for kind, name in (("Deployment", ""), ("CronJob", "-audit")):
        (volume,) = [volume for volume in pod(defaults, kind, name)["volumes"] if volume["name"] == "signing"]
        assert volume["secret"]["items"] == [{"key": "verifying-key.pem", "path": "verify.pem"}]
        env = environment(pod(defaults, kind, name)["containers"][0])
        assert env["DROPOUT_VERIFYING_KEY"] == "/signing/verify.pem"
        assert "DROPOUT_SIGNING_KEY" not in env
    assert operator(defaults)["DROPOUT_SIGNING_SECRET"] == "dropout-operator-signing"
    rest = [item for item in defaults if item["kind"] != "Secret"]
    assert "signing-key.pem" not in json.dumps(rest)


def test_without_signing_there_is_no_key_anywhere(render: Any) -> None:
    objects = render({"signing": {"enabled": False}})
    assert "signing" not in json.dumps([item for item in objects if item["kind"] != "CustomResourceDefinition"])


def test_mlflow_calls_the_operator_at_its_service_with_the_operators_secret(defaults: Objects) -> None:
    server = pod(defaults, "Deployment", "-mlflow")
    (starter,) = [container for container in server["initContainers"] if container["name"] == "webhook"]
    service = one(defaults, "Service", "-metrics")
    host = f"{service['metadata']['name']}.{service['metadata']['namespace']}.svc.cluster.local"
    assert starter["command"][-1] == f"http://{host}:{service['spec']['ports'][0]['port']}{PATH}"
    assert environment(starter)["WEBHOOK_SECRET"] == operator(defaults)["DROPOUT_WEBHOOK_SECRET"]
    names = ("MLFLOW_WEBHOOK_ALLOWED_SCHEMES", "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS", "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY")
    for name in names:
        assert environment(starter)[name] == environment(server["containers"][0])[name]
    assert "WEBHOOK_SECRET" not in environment(server["containers"][0])
    assert "DROPOUT_WEBHOOK_URL" not in operator(defaults), "the bundled server is told by its init container"
    Fernet(base64.b64decode(one(defaults, "Secret", "-webhook")["data"]["encryption-key"]))


@pytest.mark.parametrize("values", [{"registry": {"webhook": {"enabled": False}}}, {"registry": {"guard": "Off"}}], ids=json.dumps)
def test_where_nobody_shall_call_the_call_is_taken_back(render: Any, values: dict[str, Any]) -> None:
    objects = render(values)
    (starter,) = [item for item in pod(objects, "Deployment", "-mlflow")["initContainers"] if item["name"] == "webhook"]
    assert starter["command"][1:] == ["/etc/mlflow/webhook.py", "sqlite:////data/mlflow.db"]
    assert "DROPOUT_WEBHOOK_SECRET" not in operator(objects)
    assert not has(objects, "Secret", "-webhook")


def test_ones_own_registry_is_reported_on_and_not_written_unless_asked(render: Any, defaults: Objects) -> None:
    assert operator(defaults)["DROPOUT_REGISTRY_GUARD"] == "Enforce"
    own = render(OWN)
    assert operator(own)["DROPOUT_REGISTRY_GUARD"] == "Report"
    assert pod(own, "CronJob", "-audit")["containers"][0]["command"] == ["dropout", "audit"]
    assert not has(own, "Secret", "-webhook")
    asked = render(OWN | {"registry": {"guard": "Enforce", "webhook": {"url": "https://operator.example.com/hooks/mlflow"}}})
    assert operator(asked)["DROPOUT_REGISTRY_GUARD"] == "Enforce"
    assert operator(asked)["DROPOUT_WEBHOOK_URL"] == "https://operator.example.com/hooks/mlflow"
    assert set(one(asked, "Secret", "-webhook")["data"]) == {"secret"}
    assert pod(asked, "CronJob", "-audit")["containers"][0]["command"] == ["dropout", "audit", "--quarantine"]


def test_the_audit_is_a_verifier_once_at_a_time(defaults: Objects) -> None:
    spec = one(defaults, "CronJob", "-audit")["spec"]
    assert spec["concurrencyPolicy"] == "Forbid"
    assert pod(defaults, "CronJob", "-audit")["serviceAccountName"] == "dropout-operator-verifier"
    assert pod(defaults, "CronJob", "-audit")["automountServiceAccountToken"] is False
    assert spec["jobTemplate"]["spec"]["template"]["metadata"]["labels"][Label.STAGE] == Stage.VERIFY


def test_the_audits_job_is_none_that_the_operator_sweeps_up(defaults: Objects) -> None:
    """The operator ends verify Jobs in its namespace that belong to no training job."""
    assert Label.STAGE not in one(defaults, "CronJob", "-audit")["spec"]["jobTemplate"]["metadata"]["labels"]


def test_the_audit_can_be_switched_off(render: Any) -> None:
    assert not has(render({"audit": {"enabled": False}}), "CronJob", "-audit")


@pytest.mark.parametrize("wrong", [
    {"registry": {"guard": "enforce"}}, {"registry": {"models": "*"}}, {"audit": {"schedule": "hourly"}}, {"signing": {"enabled": "yes"}},
], ids=json.dumps)
def test_a_wrong_value_is_refused(render: Any, wrong: dict[str, Any]) -> None:
    with pytest.raises(Exception, match=r"values don't meet the specifications of the schema"):
        render(wrong)
