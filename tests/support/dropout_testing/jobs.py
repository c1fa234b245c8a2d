"""A training job on a bare control plane, and the kubelet that its pods do not have: tests write what it would write."""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from dropout_testing.control_plane import ControlPlane, Object
from dropout_testing.processes import wait_until

SYSTEM = "dropout-system"
MERGE = "application/merge-patch+json"
GROUP = "/apis/training.dropout.dev/v1alpha1"
TERMINAL = ("Succeeded", "Rejected", "Failed")
SECONDS = 120.0
DIGITS: Object = {"model": {"factory": "mlp"}, "data": {"factory": "sklearn", "args": {"name": "digits"}}}
TRAINED = json.dumps({"stage": "train", "reason": "Trained", "epoch": 3, "epochs": 3, "metrics": {"val_loss": 0.3}})
PASSED = json.dumps({"stage": "verify", "verdict": "Passed", "sha256": "0" * 64, "modelName": "team.digits", "modelVersion": "1"})
REJECTED = json.dumps({"stage": "verify", "verdict": "Failed", "failed": ["no_random_ops"], "message": "aten.dropout at head"})


def manifest(name: str, **spec: Any) -> Object:
    """The smallest training job, with these fields of the spec changed, those that are None left out."""
    wanted = {key: value for key, value in (DIGITS | spec).items() if value is not None}
    return {"apiVersion": "training.dropout.dev/v1alpha1", "kind": "DropoutTrainingJob", "metadata": {"name": name}, "spec": wanted}


@dataclass(frozen=True)
class Job:
    """A DropoutTrainingJob by its place."""

    plane: ControlPlane
    namespace: str
    name: str

    @property
    def path(self) -> str:
        return f"{collection(self.namespace)}/{self.name}"

    def raw(self) -> Object:
        return self.plane.get(self.path) or {}

    @property
    def uid(self) -> str:
        return str(self.raw()["metadata"]["uid"])

    @property
    def status(self) -> Object:
        found: Object = self.raw().get("status", {})
        return found

    @property
    def phase(self) -> str:
        return str(self.status.get("phase", ""))

    def condition(self, kind: str) -> str | None:
        return next((item["status"] for item in self.status.get("conditions", []) if item["type"] == kind), None)

    def change(self, **spec: Any) -> None:
        self.plane.request("PATCH", self.path, {"spec": spec}, MERGE)

    def delete(self) -> None:
        self.plane.request("DELETE", self.path)

    def events(self) -> list[str]:
        """Reasons, in no order."""
        found = self.plane.request("GET", f"/api/v1/namespaces/{self.namespace}/events?fieldSelector=involvedObject.name={self.name}")
        return [item["reason"] for item in found["items"]]

    def reaches(self, *phases: str, seconds: float = SECONDS) -> Object:
        """The status once its phase is one of `phases`."""
        self.waits(f"phase {' or '.join(phases)}", lambda: self.phase in phases, seconds)
        return self.status

    def closes(self) -> None:
        self.waits("the run to be closed", lambda: self.condition("RunClosed") == "True")

    def waits(self, what: str, ready: Callable[[], Any], seconds: float = SECONDS) -> None:
        """Waits for `ready`; a failure shows the status."""
        try:
            wait_until(f"{self.name}: {what}", lambda: bool(ready()), seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}; status: {json.dumps(self.status)}") from None

    def jobs(self, stage: str) -> list[Object]:
        namespace = SYSTEM if stage == "verify" else self.namespace
        selector = f"training.dropout.dev/job-uid={self.uid},training.dropout.dev/stage={stage}"
        found: list[Object] = self.plane.request("GET", f"/apis/batch/v1/namespaces/{namespace}/jobs?labelSelector={selector}")["items"]
        return found

    def pods(self, stage: str) -> list[Object]:
        namespace = SYSTEM if stage == "verify" else self.namespace
        selector = f"training.dropout.dev/job-uid={self.uid},training.dropout.dev/stage={stage}"
        found: list[Object] = self.plane.request("GET", f"/api/v1/namespaces/{namespace}/pods?labelSelector={selector}")["items"]
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def pod_starts(self, stage: str = "train") -> None:
        """Waits for the newest pod of a stage and lets its container run."""
        self.waits(f"a {stage} pod", lambda: self.pods(stage))
        start(self.plane, self.pods(stage)[-1])

    def pod_ends(self, stage: str = "train", exit_code: int = 0, message: str = TRAINED) -> None:
        end(self.plane, self.pods(stage)[-1], exit_code, message)

    def trains(self) -> None:
        """From its start to the beginning of verification."""
        self.pod_starts()
        self.reaches("Running")
        self.pod_ends()
        self.reaches("Verifying")

    def is_verified(self, message: str = PASSED) -> None:
        self.pod_starts("verify")
        self.pod_ends("verify", message=message)


def collection(namespace: str) -> str:
    return f"{GROUP}/namespaces/{namespace}/dropouttrainingjobs"


def create(plane: ControlPlane, namespace: str, name: str, **spec: Any) -> Job:
    plane.request("POST", collection(namespace), manifest(name, **spec))
    return Job(plane, namespace, name)


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def start(plane: ControlPlane, pod: Object) -> None:
    """As the kubelet says that a pod's container runs."""
    container = {"name": pod["spec"]["containers"][0]["name"], "ready": True, "restartCount": 0, "image": "image", "imageID": "sha256:abc"}
    write(plane, pod, {
        "phase": "Running", "podIP": "127.0.0.1", "containerStatuses": [container | {"state": {"running": {"startedAt": now()}}}],
        "conditions": [{"type": kind, "status": "True", "lastTransitionTime": now()} for kind in ("PodScheduled", "Ready")],
    })


def end(plane: ControlPlane, pod: Object, exit_code: int = 0, message: str = "", reason: str = "") -> None:
    """As the kubelet says that a pod's container ended."""
    state = {"exitCode": exit_code, "reason": reason or ("Error" if exit_code else "Completed"), "startedAt": now(), "finishedAt": now()}
    container = {"name": pod["spec"]["containers"][0]["name"], "ready": False, "restartCount": 0, "image": "image", "imageID": "sha256:abc"}
    write(plane, pod, {
        "phase": "Failed" if exit_code else "Succeeded", "conditions": [{"type": "Ready", "status": "False"}],
        "containerStatuses": [container | {"state": {"terminated": state | {"message": message}}}],
    })


def write(plane: ControlPlane, pod: Object, status: Object) -> None:
    meta = pod["metadata"]
    plane.request("PATCH", f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}/status", {"status": status}, MERGE)


@dataclass
class Witness:
    """Remembers every batch Job that ever was, by name and UID, also those that are gone when the test looks."""

    plane: ControlPlane
    seen: dict[tuple[str, str], set[str]] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> "Witness":
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        assert self._thread is not None
        self._thread.join(30)

    def _watch(self) -> None:
        version = "0"
        while not self._stop.is_set():
            path = f"/apis/batch/v1/jobs?watch=true&timeoutSeconds=2&resourceVersion={version}"
            for line in self.plane.lines(path):
                event = json.loads(line)
                if event["type"] == "ERROR":  # too old: begin anew with what is there
                    version = "0"
                    break
                meta = event["object"]["metadata"]
                version = meta["resourceVersion"]
                self.seen.setdefault((meta["namespace"], meta["name"]), set()).add(meta["uid"])

    def count(self, namespace: str, name: str) -> int:
        """How many Jobs of this name there have been."""
        return len(self.seen.get((namespace, name), ()))


def forget(plane: ControlPlane, namespace: str) -> None:
    """Deletes every training job of a namespace and waits until they are gone."""
    plane.request("DELETE", collection(namespace))
    end_at = time.monotonic() + SECONDS
    while plane.request("GET", collection(namespace))["items"]:
        assert time.monotonic() < end_at, f"{namespace} still has training jobs"
        time.sleep(0.1)


def refused(plane: ControlPlane, namespace: str, body: Object) -> str:
    """The words with which the API server refuses a manifest, as a client with strict field validation sees them."""
    return plane.refusal("POST", f"{collection(namespace)}?fieldValidation=Strict", body)

