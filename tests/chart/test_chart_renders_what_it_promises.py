"""Rendered manifests: security, rights, credentials, and what the values switch."""

import base64
import importlib.util
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from dropout_api import names
from dropout_operator.settings import Settings

CHART = Path(__file__).parents[2] / "charts" / "dropout-operator"
NAMESPACED = {
    "Deployment", "Service", "ServiceAccount", "Secret", "ConfigMap", "PersistentVolumeClaim", "NetworkPolicy",
    "ServiceMonitor", "PodMonitor", "CronJob",
}
CLUSTER_WIDE = {"ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition"}
Objects = list[dict[str, Any]]


@pytest.fixture(scope="module", params=["defaults", "everything", "own MLflow", "own MLflow without users"])
def values(request: pytest.FixtureRequest, everything: dict[str, Any]) -> dict[str, Any]:
    own = {"trackingUri": "https://mlflow.example.com/", "existingSecrets": {"operator": "my-operator", "verifier": "my-verifier"}}
    return {
        "defaults": {}, "everything": everything, "own MLflow": {"mlflow": own},
        "own MLflow without users": {"mlflow": {"trackingUri": "http://mlflow:5000", "auth": False}},
    }[request.param]


@pytest.fixture(scope="module")
def objects(render: Any, values: dict[str, Any]) -> Objects:
    return render(values)


@pytest.fixture(scope="module")
def defaults(render: Any) -> Objects:
    return render()


def of_kind(objects: Objects, kind: str, ending: str = "") -> Objects:
    return [item for item in objects if item["kind"] == kind and item["metadata"]["name"].endswith(ending)]


def pods(objects: Objects) -> Iterator[dict[str, Any]]:
    for item in of_kind(objects, "Deployment"):
        yield item["spec"]["template"]["spec"]
    for item in of_kind(objects, "CronJob"):
        yield item["spec"]["jobTemplate"]["spec"]["template"]["spec"]


def containers(pod: dict[str, Any]) -> Objects:
    return pod["containers"] + pod.get("initContainers", [])


def operator_env(objects: Objects) -> dict[str, dict[str, Any]]:
    (deployment,) = [item for item in of_kind(objects, "Deployment") if not item["metadata"]["name"].endswith("-mlflow")]
    return {item["name"]: item for item in deployment["spec"]["template"]["spec"]["containers"][0]["env"]}


@pytest.mark.parametrize("file", ["defaults", "ci/everything-values.yaml"])
def test_lint_finds_nothing(helm: str, file: str) -> None:
    options = [] if file == "defaults" else ["--values", str(CHART / file)]
    done = subprocess.run([helm, "lint", "--strict", str(CHART), *options], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_object_is_unique_and_in_its_place(objects: Objects) -> None:
    keys = [(item["kind"], item["metadata"]["name"]) for item in objects]
    assert len(keys) == len(set(keys))
    for item in objects:
        assert item["kind"] in NAMESPACED | CLUSTER_WIDE
        assert item["metadata"].get("namespace") == ("dropout-system" if item["kind"] in NAMESPACED else None), item["metadata"]["name"]


def test_every_pod_satisfies_the_restricted_standard(objects: Objects) -> None:
    seen = list(pods(objects))
    assert seen
    for pod in seen:
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert {next(iter(set(volume) - {"name"})) for volume in pod["volumes"]} <= {
            "configMap", "emptyDir", "projected", "secret", "persistentVolumeClaim", "downwardAPI",
        }
        for container in containers(pod):
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False
            assert security["readOnlyRootFilesystem"] is True
            assert security["runAsNonRoot"] is True
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert security["seccompProfile"] == {"type": "RuntimeDefault"}
            assert "hostPort" not in json.dumps(container)


def test_every_container_has_measured_resources(objects: Objects) -> None:
    for pod in pods(objects):
        for container in containers(pod):
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
            assert "memory" in container["resources"]["limits"]


def test_only_the_operator_has_a_kubernetes_token(objects: Objects) -> None:
    for item in of_kind(objects, "Deployment"):
        pod = item["spec"]["template"]["spec"]
        assert pod.get("automountServiceAccountToken", True) is not item["metadata"]["name"].endswith("-mlflow")
    (verifier,) = of_kind(objects, "ServiceAccount", "-verifier")
    assert verifier["automountServiceAccountToken"] is False
    for binding in of_kind(objects, "ClusterRoleBinding"):
        assert all(not subject["name"].endswith("-verifier") for subject in binding["subjects"])


def test_two_operators_never_run_at_once(objects: Objects) -> None:
    for item in of_kind(objects, "Deployment"):
        assert item["spec"]["replicas"] == 1
        assert item["spec"]["strategy"] == {"type": "Recreate"}


def rules(objects: Objects) -> set[tuple[str, str, str]]:
    (binding,) = of_kind(objects, "ClusterRoleBinding")
    (role,) = [item for item in of_kind(objects, "ClusterRole") if item["metadata"]["name"] == binding["roleRef"]["name"]]
    return {
        (group, resource, verb)
        for rule in role["rules"] for group in rule["apiGroups"] for resource in rule["resources"] for verb in rule["verbs"]
    }


def test_no_right_is_a_wildcard(objects: Objects) -> None:
    for role in of_kind(objects, "ClusterRole"):
        for rule in role["rules"]:
            assert "*" not in rule["apiGroups"] + rule["resources"] + rule["verbs"]
            assert "nonResourceURLs" not in rule


def test_operator_has_exactly_these_rights(objects: Objects) -> None:
    job, batch, core = (names.GROUP, names.PLURAL), ("batch", "jobs"), ""
    assert rules(objects) == {
        *((*job, verb) for verb in ("get", "list", "watch", "delete")), (job[0], f"{job[1]}/status", "patch"),
        (job[0], f"{job[1]}/finalizers", "update"),
        *((*batch, verb) for verb in ("get", "list", "watch", "create", "delete")),
        *((core, "pods", verb) for verb in ("list", "watch")),
        *((core, kind, "create") for kind in ("services", "secrets", "events")), (core, "namespaces", "get"),
        *(("apiextensions.k8s.io", "customresourcedefinitions", verb) for verb in ("list", "watch")),
    }
    (role,) = [item for item in of_kind(objects, "ClusterRole") if not item["metadata"]["name"].endswith(("-view", "-edit"))]
    (namespaces,) = [rule for rule in role["rules"] if rule["resources"] == ["namespaces"]]
    assert namespaces["resourceNames"] == ["kube-system"]


def test_users_may_not_write_status(objects: Objects) -> None:
    (edit,), (view,) = of_kind(objects, "ClusterRole", "-edit"), of_kind(objects, "ClusterRole", "-view")
    verbs = ["create", "update", "patch", "delete", "deletecollection"]
    assert edit["rules"] == [{"apiGroups": [names.GROUP], "resources": [names.PLURAL], "verbs": verbs}]
    assert set(view["rules"][0]["verbs"]) == {"get", "list", "watch"}


def test_operator_can_read_its_settings(objects: Objects) -> None:
    """The environment that the chart writes is one that the operator accepts."""
    env = {name: item.get("value", "from-elsewhere") for name, item in operator_env(objects).items()}
    settings = Settings.from_environment(env)
    assert settings.verifier_image == settings.trainer_image
    assert settings.train_resources["requests"]
    assert settings.verify_resources["limits"]["memory"]
    assert settings.verifier_service_account in {item["metadata"]["name"] for item in of_kind(objects, "ServiceAccount")}
    known = {"DROPOUT_NAMESPACE", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"}
    source = Path(__file__).parents[2].joinpath("operator/dropout_operator/settings.py").read_text()
    assert {name for name in env if f'"{name}"' not in source} <= known


def test_secrets_that_pods_name_are_made_or_given(objects: Objects, values: dict[str, Any]) -> None:
    made = {item["metadata"]["name"]: set(item["data"]) for item in of_kind(objects, "Secret")}
    given = set(values.get("mlflow", {}).get("existingSecrets", {}).values())
    given |= {values.get("signing", {}).get("existingSecret"), values.get("registry", {}).get("webhook", {}).get("existingSecret")}
    for pod in pods(objects):
        for reference in find(pod, "secretKeyRef"):
            assert reference["name"] in given or reference["key"] in made[reference["name"]]
        for source in (source["secret"] for volume in pod["volumes"] for source in volume.get("projected", {}).get("sources", [])):
            assert source["name"] in given or {item["key"] for item in source["items"]} <= made[source["name"]]
        for secret in (volume["secret"] for volume in pod["volumes"] if "secret" in volume):
            assert secret["secretName"] in given or {item["key"] for item in secret["items"]} <= made[secret["secretName"]]
    env = operator_env(objects)
    if "DROPOUT_VERIFIER_SECRET" in env:
        name = env["DROPOUT_VERIFIER_SECRET"]["value"]
        assert name in given or made[name] >= {"username", "password"}


def find(node: Any, key: str) -> Iterator[Any]:
    if isinstance(node, dict):
        if key in node:
            yield node[key]
        for value in node.values():
            yield from find(value, key)
    elif isinstance(node, list):
        for value in node:
            yield from find(value, key)


def test_passwords_are_long_different_and_nowhere_but_in_their_secrets(defaults: Objects) -> None:
    public = ("username", "verifying-key.pem")
    secrets = [
        base64.b64decode(value).decode() for item in of_kind(defaults, "Secret") for key, value in item["data"].items() if key not in public
    ]
    assert len(set(secrets)) == 8
    assert min(map(len, secrets)) >= 32
    rest = json.dumps([item for item in defaults if item["kind"] != "Secret"])
    assert not any(secret in rest or base64.b64encode(secret.encode()).decode() in rest for secret in secrets)


def test_notes_say_where_the_password_is_and_not_what_it_is() -> None:
    notes = (CHART / "templates" / "NOTES.txt").read_text()
    assert "port-forward" in notes
    assert "get secret" in notes
    assert "lookup" not in notes
    assert "randAlphaNum" not in notes


def test_first_job_of_the_notes_is_valid() -> None:
    from dropout_api.problems import problems

    text = (CHART / "templates" / "NOTES.txt").read_text().split("<<'EOF'\n")[1].split("     EOF")[0]
    job = yaml.safe_load(text)
    assert (job["apiVersion"], job["kind"]) == (f"{names.GROUP}/{names.API_VERSION}", names.KIND)
    assert problems(job["spec"]) == []


def test_data_and_its_passwords_are_kept_together(render: Any, defaults: Objects) -> None:
    kept = of_kind(defaults, "Secret") + of_kind(defaults, "PersistentVolumeClaim") + of_kind(defaults, "CustomResourceDefinition")
    assert len(kept) == 8
    assert all(item["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep" for item in kept)
    dropped = render({"mlflow": {"keep": False}, "crds": {"keep": False}})
    assert "resource-policy" not in json.dumps(dropped)


def test_no_mlflow_beside_ones_own(render: Any) -> None:
    own = render({"mlflow": {"trackingUri": "https://mlflow.example.com/", "existingSecrets": {"operator": "o", "verifier": "v"}}})
    assert len(of_kind(own, "Deployment")) == 1
    assert [item["metadata"]["name"] for item in of_kind(own, "Secret")] == ["dropout-operator-signing"]
    assert not of_kind(own, "PersistentVolumeClaim") + of_kind(own, "ConfigMap")
    env = operator_env(own)
    assert env["DROPOUT_MLFLOW_URI"]["value"] == env["DROPOUT_MLFLOW_PUBLIC_URL"]["value"] == "https://mlflow.example.com"
    assert env["DROPOUT_MLFLOW_AUTH"]["value"] == "true"


def test_ones_own_mlflow_needs_its_secrets_or_no_users(render: Any) -> None:
    with pytest.raises(Exception, match=r"mlflow\.existingSecrets\.\w+ must name a Secret.*mlflow\.auth=false"):
        render({"mlflow": {"trackingUri": "http://mlflow:5000"}})
    env = operator_env(render({"mlflow": {"trackingUri": "http://mlflow:5000", "auth": False}}))
    assert env["DROPOUT_MLFLOW_AUTH"]["value"] == "false"
    assert "DROPOUT_TRAINER_KEY" not in env


def test_mlflow_answers_by_its_names_and_by_no_other(render: Any, defaults: Objects) -> None:
    def hosts(objects: Objects) -> set[str]:
        (deployment,) = of_kind(objects, "Deployment", "-mlflow")
        arguments = deployment["spec"]["template"]["spec"]["containers"][0]["args"]
        return set(next(item for item in arguments if item.startswith("--allowed-hosts=")).removeprefix("--allowed-hosts=").split(","))

    uri = operator_env(defaults)["DROPOUT_MLFLOW_URI"]["value"]
    assert uri == "http://dropout-operator-mlflow.dropout-system.svc.cluster.local:5000"
    assert "dropout-operator-mlflow.dropout-system.svc.cluster.local:*" in hosts(defaults)
    assert "*" not in hosts(defaults)
    more = hosts(render({"mlflow": {"publicUrl": "https://mlflow.example.com:8443/", "allowedHosts": ["other.example.com"]}}))
    assert more - hosts(defaults) == {"mlflow.example.com:8443", "other.example.com"}


def test_with_network_policies_a_verifier_reaches_names_and_mlflow_only(render: Any) -> None:
    policies = of_kind(render({"networkPolicy": {"enabled": True}}), "NetworkPolicy")
    (verifier,) = of_kind(policies, "NetworkPolicy", "-verifier")
    assert verifier["spec"]["podSelector"]["matchLabels"] == {str(names.Label.STAGE): str(names.Stage.VERIFY)}
    assert "ingress" not in verifier["spec"]
    assert len(verifier["spec"]["egress"]) == 2
    (mlflow,) = of_kind(policies, "NetworkPolicy", "-mlflow")
    labels = [peer["podSelector"]["matchLabels"] for peer in mlflow["spec"]["ingress"][0]["from"]]
    assert {str(names.Label.STAGE): str(names.Stage.TRAIN)} in labels


def test_selectors_match_their_pods(objects: Objects) -> None:
    workloads = [item["spec"]["template"]["metadata"]["labels"] for item in of_kind(objects, "Deployment")]
    for item in of_kind(objects, "Service"):
        assert sum(item["spec"]["selector"].items() <= labels.items() for labels in workloads) == 1
    for item in of_kind(objects, "Deployment"):
        assert item["spec"]["selector"]["matchLabels"].items() <= item["spec"]["template"]["metadata"]["labels"].items()


def test_monitors_select_by_the_shared_names(render: Any, everything: dict[str, Any]) -> None:
    (monitor,) = of_kind(render(everything), "PodMonitor")
    assert monitor["spec"]["selector"]["matchLabels"] == {str(names.Label.STAGE): str(names.Stage.TRAIN)}
    assert monitor["spec"]["podMetricsEndpoints"][0]["port"] == names.METRICS_PORT_NAME
    assert monitor["spec"]["podMetricsEndpoints"][0]["path"] == names.METRICS_PATH
    sources = [item["sourceLabels"][0] for item in monitor["spec"]["podMetricsEndpoints"][0]["relabelings"]]
    for label in (names.Label.NAME, names.Label.ATTEMPT):
        assert "__meta_kubernetes_pod_label_" + label.translate(str.maketrans("./-", "___")) in sources


def test_definition_is_the_generated_one(render: Any) -> None:
    generated = yaml.safe_load((CHART.parents[1] / "crds" / "dropouttrainingjobs.yaml").read_text())
    (kept,) = of_kind(render(), "CustomResourceDefinition")
    assert kept["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
    assert kept == generated
    assert of_kind(render({"crds": {"keep": False}}), "CustomResourceDefinition") == [generated]
    assert of_kind(render({"crds": {"create": False}}), "CustomResourceDefinition") == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"mlflw": {}}, {"mlflow": {"tracking_uri": "http://x"}}, {"operator": {"resources": {"request": {}}}}, {"mlflow": {"keep": "yes"}},
        {"operator": {"resyncSeconds": "300"}}, {"images": {"pullPolicy": "Sometimes"}}, {"images": {"trainer": {"digest": "abc"}}},
        {"mlflow": {"trackingUri": "mlflow:5000"}}, {"mlflow": {"allowedHosts": ["*"]}}, {"mlflow": {"workers": 0}},
        {"operator": {"logLevel": "debug"}}, {"mlflow": {"persistence": {"size": "lots"}}},
    ],
    ids=json.dumps,
)
def test_misspelt_and_mistyped_values_are_refused(render: Any, wrong: dict[str, Any]) -> None:
    with pytest.raises(Exception, match=r"values don't meet the specifications of the schema"):
        render(wrong)


def test_generated_files_are_fresh() -> None:
    spec = importlib.util.spec_from_file_location("chart_generate", CHART.parent / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    stale = [path.name for path, text in module.outputs().items() if path.read_text() != text]
    assert stale == [], "run python charts/generate.py"


def test_every_value_is_described_and_tried(everything: dict[str, Any]) -> None:
    """The schema has the keys of values.yaml, and the values that turn everything on name each of them."""

    def keys(node: dict[str, Any], prefix: str = "") -> Iterator[str]:
        for name, below in node["properties"].items():
            assert not ("properties" in below and "description" not in below and below.get("additionalProperties") is not False)
            if "description" in below:
                yield f"{prefix}{name}"
            else:
                yield from keys(below, f"{prefix}{name}.")

    def lookup(tree: Any, key: str) -> bool:
        for name in key.split("."):
            if not isinstance(tree, dict) or name not in tree:
                return False
            tree = tree[name]
        return True

    schema = json.loads((CHART / "values.schema.json").read_text())
    described = set(keys(schema)) - {"global"}
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert [key for key in described if not lookup(values, key)] == []
    assert [key for key in described if not lookup(everything, key)] == []
