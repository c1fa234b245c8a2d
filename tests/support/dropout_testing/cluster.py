"""The cluster under test, through kubectl and helm as a user has them."""

import contextlib
import json
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Object = dict[str, Any]
ROOT = Path(__file__).resolve().parents[3]
SAMPLES = ROOT / "crds/samples"
RELEASE = "dropout-operator"
OPERATOR_NAMESPACE = "dropout-system"
OPERATOR_ACCOUNT = RELEASE
OPERATOR_SELECTOR = f"app.kubernetes.io/instance={RELEASE},app.kubernetes.io/component=operator"
MLFLOW_SERVICE = MLFLOW_DEPLOYMENT = f"{RELEASE}-mlflow"
MLFLOW_ADMIN_SECRET = f"{RELEASE}-mlflow-admin"
TRAINER_IMAGE = f"{os.environ.get('IMAGE_REPOSITORY', 'localhost')}/dropout-trainer:{os.environ.get('IMAGE_TAG', 'dev')}"
TERMINAL = ("Succeeded", "Rejected", "Failed")


def run(*command: str, stdin: str | None = None, check: bool = True, seconds: float = 300) -> str:
    """Standard output of a command. Raises AssertionError with its words when it fails."""
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=seconds, cwd=ROOT)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(command)[:200]} ended with {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout


def kubectl(*arguments: str, **options: Any) -> str:
    return run("kubectl", *arguments, **options)


def get(kind: str, name: str, namespace: str) -> Object | None:
    text = kubectl("get", kind, name, "-n", namespace, "-o", "json", "--ignore-not-found")
    return json.loads(text) if text.strip() else None


def items(kind: str, namespace: str, selector: str = "") -> list[Object]:
    found: list[Object] = json.loads(kubectl("get", kind, "-n", namespace, "-l", selector, "-o", "json"))["items"]
    return found


def eventually(what: str, probe: Callable[[], Any], seconds: float = 120, pause: float = 1.0) -> Any:
    """The first true value of `probe`, or a failure that says what was waited for and what was last seen."""
    end, last = time.monotonic() + seconds, None
    while time.monotonic() < end:
        last = probe()
        if last:
            return last
        time.sleep(pause)
    raise AssertionError(f"{what}: not within {seconds:.0f} s; last seen: {last!r}")


@dataclass(frozen=True)
class TrainingJob:
    """A DropoutTrainingJob on the cluster."""

    namespace: str
    name: str

    def raw(self) -> Object | None:
        return get("dtj", self.name, self.namespace)

    @property
    def status(self) -> Object:
        return (self.raw() or {}).get("status", {})

    @property
    def phase(self) -> str:
        return str(self.status.get("phase", ""))

    def condition(self, kind: str) -> Object:
        return next((item for item in self.status.get("conditions", []) if item["type"] == kind), {})

    def events(self) -> list[Object]:
        selector = f"involvedObject.name={self.name},involvedObject.kind=DropoutTrainingJob"
        text = kubectl("get", "events", "-n", self.namespace, "--field-selector", selector, "-o", "json")
        found: list[Object] = json.loads(text)["items"]
        return found

    def reaches(self, *phases: str, seconds: float = 240) -> Object:
        """Waits for one of `phases`; a terminal phase that is none of them fails at once. Gives the status."""
        def arrived() -> bool:
            phase = self.phase
            assert phase in phases or phase not in TERMINAL, f"{self.name} is {phase}: {json.dumps(self.status, indent=1)}"
            return phase in phases

        eventually(f"{self.name} in {' or '.join(phases)}", arrived, seconds)
        if self.phase in TERMINAL and "run" in self.status:
            eventually("the run to be closed", lambda: self.condition("RunClosed").get("status") == "True", 120)
        return self.status

    def train_pod(self) -> Object | None:
        found = items("pods", self.namespace, f"training.dropout.dev/job-name={self.name},training.dropout.dev/stage=train")
        return found[-1] if found else None

    def delete_pod(self) -> None:
        """The training's, which gets SIGTERM."""
        pod = self.train_pod()
        assert pod is not None
        kubectl("delete", "pod", pod["metadata"]["name"], "-n", self.namespace, "--wait=false")


def training_processes(pod_uid: str) -> list[int]:
    """The processes of a pod of this machine that run `dropout train`."""
    return [int(folder.name) for folder in Path("/proc").glob("[0-9]*") if _trains_in(folder, pod_uid)]


def _trains_in(folder: Path, pod_uid: str) -> bool:
    try:
        return pod_uid in (folder / "cgroup").read_text() and b"train" in (folder / "cmdline").read_bytes().split(b"\0")
    except OSError:  # it ended while we looked
        return False


def new_namespace(prefix: str) -> str:
    """A namespace of its own that enforces the strictest Pod Security level."""
    name = f"{prefix}-{uuid.uuid4().hex[:6]}"
    kubectl("create", "namespace", name)
    kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
    return name


def apply_sample(sample: str, namespace: str, change: Callable[[Object], None] = lambda _: None, name: str | None = None) -> TrainingJob:
    """Applies crds/samples/`sample`.yaml, its training job changed by `change`."""
    import yaml

    documents = list(yaml.safe_load_all((SAMPLES / f"{sample}.yaml").read_text()))
    job = next(document for document in documents if document["kind"] == "DropoutTrainingJob")
    job["metadata"]["name"] = name or job["metadata"]["name"]
    change(job)
    kubectl("apply", "-n", namespace, "-f", "-", stdin="---\n".join(yaml.safe_dump(document) for document in documents))
    return TrainingJob(namespace, job["metadata"]["name"])


def secret(name: str, namespace: str) -> dict[str, str]:
    import base64

    found = get("secret", name, namespace)
    assert found is not None, f"no secret {namespace}/{name}"
    return {key: base64.b64decode(value).decode() for key, value in found["data"].items()}


def in_ci() -> bool:
    return os.environ.get("CI", "").lower() in ("1", "true")


def install(*options: str) -> None:
    """Installs or upgrades the chart as the demo does, and waits until it is ready."""
    command = ["helm", "upgrade", "--install", RELEASE, "charts/dropout-operator", "-n", OPERATOR_NAMESPACE, "--create-namespace"]
    run(*command, "-f", "hack/local-values.yaml", "--set", "operator.resyncSeconds=30", "--wait", "--timeout", "5m", *options, seconds=400)


@contextlib.contextmanager
def advertised(resource: str, count: int) -> Iterator[None]:
    """The node offers a device that it does not have; scheduling and environment are then real."""
    path = f"/status/capacity/{resource.replace('/', '~1')}"
    (node,) = kubectl("get", "nodes", "-o", "name").split()
    change = ["patch", node, "--subresource=status", "--type=json", "-p"]
    kubectl(*change, json.dumps([{"op": "add", "path": path, "value": str(count)}]))
    try:
        yield
    finally:
        kubectl(*change, json.dumps([{"op": "remove", "path": path}]))


@contextlib.contextmanager
def scaled_to_zero(deployment: str, seconds: float) -> Iterator[None]:
    """The deployment has no pod for this long, and is back when this ends."""
    scale = ["scale", "deployment", deployment, "-n", OPERATOR_NAMESPACE]
    kubectl(*scale, "--replicas=0")
    try:
        time.sleep(seconds)  # the outage itself
        yield
    finally:
        kubectl(*scale, "--replicas=1")
        kubectl("rollout", "status", "deployment", deployment, "-n", OPERATOR_NAMESPACE, "--timeout=180s")


def volume_claim(namespace: str, name: str) -> str:
    """A new persistent volume claim, without a volume until the first pod names it."""
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "100Mi"}}}
    body = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name, "namespace": namespace}, "spec": spec}
    kubectl("apply", "-f", "-", stdin=json.dumps(body))
    return name


def volume_with(namespace: str, claim: str, source: Path) -> str:
    """A persistent volume claim that holds the files of a folder of this machine, through the node's file system."""
    volume_claim(namespace, claim)
    # A claim may wait for its first pod: one that ends at once binds it.
    safe = {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}}
    pod = {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"{claim}-first", "namespace": namespace}, "spec": {
            "restartPolicy": "Never", "securityContext": safe,
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}],
            "containers": [{
                "name": "first", "image": TRAINER_IMAGE, "command": ["true"], "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
            }],
        },
    }
    kubectl("apply", "-f", "-", stdin=json.dumps(pod))
    bound = eventually("the claim to be bound", lambda: (get("pvc", claim, namespace) or {}).get("spec", {}).get("volumeName"), 90)
    volume = json.loads(kubectl("get", "pv", bound, "-o", "json"))["spec"]
    folder = Path((volume.get("hostPath") or volume["local"])["path"])
    eventually("the volume's folder", folder.is_dir, 60)
    for file in source.iterdir():
        shutil.copy(file, folder)
    return claim


def audit_log() -> Path | None:
    """The API server's audit log, where this machine is the cluster."""
    home = Path(os.environ.get("CLUSTER_HOME", Path.home() / ".cache/dropout-operator/cluster/state"))
    path = home / "log/audit.log"
    return path if path.exists() else None


def grants(account: str) -> set[tuple[str, str, str]]:
    """What the ClusterRole of an account's name allows: API group, resource, verb."""
    role = json.loads(kubectl("get", "clusterrole", account, "-o", "json"))
    return {
        (group, resource, verb) for rule in role["rules"] for group in rule["apiGroups"]
        for resource in rule["resources"] for verb in rule["verbs"]
    }
