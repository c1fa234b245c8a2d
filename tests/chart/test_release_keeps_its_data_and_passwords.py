"""The chart against a real API server without nodes: what is admitted, what an upgrade keeps, what an uninstall leaves."""

import base64
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dropout_testing.control_plane import ControlPlane, control_plane, find_binaries

CHART = Path(__file__).parents[2] / "charts" / "dropout-operator"
NAMESPACE = "/api/v1/namespaces/dropout-system"
SECRETS = ("mlflow-admin", "mlflow-operator", "mlflow-verifier", "mlflow-server", "signing", "webhook")
Helm = Callable[..., str]
pytestmark = [pytest.mark.xdist_group("chart-control-plane"), pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    binaries = find_binaries()
    if binaries is None:
        reason = "no control plane here: build it with hack/cluster"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    with control_plane(tmp_path_factory.mktemp("plane"), binaries) as running:
        labels = {"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/enforce-version": "latest"}
        running.request("POST", "/api/v1/namespaces", {"metadata": {"name": "dropout-system", "labels": labels}})
        yield running


@pytest.fixture
def run_helm(helm: str, plane: ControlPlane) -> Iterator[Helm]:
    """Runs helm on the release, which every test installs for itself."""
    kubeconfig = str(plane.kubeconfig())

    def run(*arguments: str) -> str:
        command = [helm, "--kubeconfig", kubeconfig, "--namespace", "dropout-system", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    yield run
    run("uninstall", "dropout-operator", "--ignore-not-found")
    for name in SECRETS:
        if plane.get(f"{NAMESPACE}/secrets/dropout-operator-{name}"):
            plane.request("DELETE", f"{NAMESPACE}/secrets/dropout-operator-{name}")


def install(run: Helm, *options: str) -> str:
    return run("upgrade", "--install", "dropout-operator", str(CHART), *options)


def secrets(plane: ControlPlane) -> dict[str, dict[str, str]]:
    found = {name: plane.get(f"{NAMESPACE}/secrets/dropout-operator-{name}") for name in SECRETS}
    return {name: secret["data"] for name, secret in found.items() if secret}


def test_every_object_is_admitted_without_a_warning(plane: ControlPlane, run_helm: Helm, everything: dict[str, Any]) -> None:
    """Also under the Pod Security Standard `restricted`, of which a Deployment's violations are warnings."""
    assert "warning" not in install(run_helm).lower()
    for name in ("dropout-operator", "dropout-operator-mlflow"):
        deployment = plane.get(f"/apis/apps/v1{NAMESPACE.removeprefix('/api/v1')}/deployments/{name}")
        assert deployment is not None
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": deployment["spec"]["template"]["spec"]}
        pod["spec"].pop("serviceAccountName", None)
        assert plane.request("POST", f"{NAMESPACE}/pods?dryRun=All", pod)["kind"] == "Pod"


def test_upgrade_keeps_passwords_and_uninstall_leaves_them_with_the_data(plane: ControlPlane, run_helm: Helm) -> None:
    install(run_helm)
    first = secrets(plane)
    assert first.keys() == set(SECRETS)
    install(run_helm, "--set", "operator.logLevel=DEBUG")
    assert secrets(plane) == first
    run_helm("uninstall", "dropout-operator")
    assert secrets(plane) == first
    assert plane.get(f"{NAMESPACE}/persistentvolumeclaims/dropout-operator-mlflow")
    assert plane.get("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/dropouttrainingjobs.training.dropout.dev")
    assert plane.get("/apis/rbac.authorization.k8s.io/v1/clusterroles/dropout-operator") is None
    install(run_helm)
    assert secrets(plane) == first


def test_a_deleted_secret_is_made_anew_and_the_others_stay(plane: ControlPlane, run_helm: Helm) -> None:
    install(run_helm)
    first = secrets(plane)
    plane.request("DELETE", f"{NAMESPACE}/secrets/dropout-operator-mlflow-verifier")
    install(run_helm)
    second = secrets(plane)
    assert second["mlflow-verifier"]["password"] != first["mlflow-verifier"]["password"]
    assert {n: data for n, data in second.items() if n != "mlflow-verifier"} == {n: d for n, d in first.items() if n != "mlflow-verifier"}


def test_a_persons_own_change_of_a_password_is_kept(plane: ControlPlane, run_helm: Helm) -> None:
    install(run_helm)
    mine = base64.b64encode(b"a-password-that-i-chose").decode()
    path = f"{NAMESPACE}/secrets/dropout-operator-mlflow-admin"
    plane.request("PATCH", path, {"data": {"password": mine}}, "application/merge-patch+json")
    install(run_helm)
    assert secrets(plane)["mlflow-admin"]["password"] == mine


def test_what_helm_says_holds_no_password(plane: ControlPlane, run_helm: Helm) -> None:
    said = install(run_helm)
    assert "port-forward" in said
    for data in secrets(plane).values():
        for key, value in data.items():
            assert key == "username" or (value not in said and base64.b64decode(value).decode() not in said)


def test_operator_may_do_what_its_role_says_and_no_more(plane: ControlPlane, run_helm: Helm) -> None:
    install(run_helm)

    def may(verb: str, group: str, resource: str, namespace: str = "team-a", **more: str) -> bool:
        attributes = {"verb": verb, "group": group, "resource": resource, "namespace": namespace, **more}
        review = {"spec": {"user": "system:serviceaccount:dropout-system:dropout-operator", "resourceAttributes": attributes}}
        answer = plane.request("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", review)
        return bool(answer["status"]["allowed"])

    assert may("create", "batch", "jobs")
    assert may("create", "", "secrets")
    assert not any(may(verb, "", "secrets") for verb in ("get", "list", "watch", "update", "patch", "delete"))
    assert not any(may(verb, "", "pods") for verb in ("create", "delete", "patch"))
    assert not may("get", "", "pods", subresource="proxy")
    assert not may("create", "", "pods", subresource="exec")
    assert may("get", "", "namespaces", namespace="", name="kube-system")
    assert not may("get", "", "namespaces", namespace="", name="default")
    assert not may("update", "training.dropout.dev", "dropouttrainingjobs")
