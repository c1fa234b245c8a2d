"""How soon a new job becomes a Job, and what the operator's memory is with many finished jobs behind it.

Against a real API server with etcd and a real MLflow with passwords on, the operator in an environment like its image's. The
peer is a bare loop that creates the same batch Job by itself: what the API server alone takes.
"""

import contextlib
import json
import os
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from dropout_testing.control_plane import TOKEN, ControlPlane, control_plane, find_binaries
from dropout_testing.mlflow_server import mlflow_server
from dropout_testing.processes import free_port, running, wait_until

ROOT = Path(__file__).resolve().parents[1]
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
DTJ = "/apis/training.dropout.dev/v1alpha1/namespaces/default/dropouttrainingjobs"
JOBS = "/apis/batch/v1/namespaces/default/jobs"
EVERY_SECONDS = 2.0


@dataclass(frozen=True)
class Figure:
    """One measured number, and what it is held against."""

    name: str
    value: str
    bound: str
    holds: bool


def figures(jobs: int = 30, finished: int = 200) -> list[Figure]:
    """Measures both, in one run. `jobs`: how many are created, one every two seconds."""
    binaries = find_binaries()
    if binaries is None:
        raise SystemExit("benchmarks: build the control plane first: hack/cluster/cluster build")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        plane = stack.enter_context(control_plane(folder / "plane", binaries))
        plane.request("POST", CRDS, yaml.safe_load((ROOT / "crds/dropouttrainingjobs.yaml").read_text()))
        plane.request("POST", "/api/v1/namespaces", {"metadata": {"name": "dropout-system"}})
        mlflow = stack.enter_context(mlflow_server(folder / "mlflow"))
        wait_until("the CRD", lambda: plane.serves(DTJ))
        _create_finished(plane, finished)
        operator = stack.enter_context(_operator(plane, mlflow, folder))
        memory = _resident_mib(operator.pid)
        seen = stack.enter_context(_job_times(plane))
        bare = [_bare_job(plane, seen, number) for number in range(10)]
        ours = _steady_stream(plane, seen, jobs)
    p95 = statistics.quantiles(ours, n=20)[-1]
    return [
        Figure("train Job created after the training job, p50", f"{statistics.median(ours) * 1000:.0f} ms", "", True),
        Figure("the same, p95", f"{p95 * 1000:.0f} ms", "< 1000 ms", p95 < 1.0),
        Figure("a bare POST of the Job, p50", f"{statistics.median(bare) * 1000:.0f} ms", "", True),
        Figure("ours over bare, p50", f"{statistics.median(ours) / statistics.median(bare):.1f} ×", "", True),
        Figure(f"operator's memory with {finished} finished jobs", f"{memory:.0f} MiB", "< 200 MiB", memory < 200),
    ]


def _job(name: str) -> dict[str, Any]:
    spec = {"model": {"factory": "mlp"}, "data": {"factory": "sklearn", "args": {"name": "digits"}}}
    return {"apiVersion": "training.dropout.dev/v1alpha1", "kind": "DropoutTrainingJob", "metadata": {"name": name}, "spec": spec}


def _create_finished(plane: ControlPlane, count: int) -> None:
    closed = {"type": "RunClosed", "status": "True", "reason": "Finished", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    status = {"phase": "Succeeded", "conditions": [closed], "progress": {"epoch": 9, "epochs": 9, "percent": 100, "metrics": {
        "train_loss": 0.1, "val_loss": 0.2, "val_gap": 0.1}}}
    for number in range(count):
        plane.request("POST", DTJ, _job(f"done-{number}"))
        plane.request("PATCH", f"{DTJ}/done-{number}/status", {"status": status}, "application/merge-patch+json")


@contextlib.contextmanager
def _operator(plane: ControlPlane, mlflow: Any, folder: Path) -> "Iterator[subprocess.Popen[bytes]]":
    port = free_port()
    environment = {
        "KUBECONFIG": str(plane.kubeconfig()), "DROPOUT_NAMESPACE": "dropout-system", "DROPOUT_TRAINER_IMAGE": "trainer:dev",
        "DROPOUT_PORT": str(port), "PYTHONPATH": f"{ROOT}/crds:{ROOT}/operator", **mlflow.operator_environment(),
    }
    command = [_operator_python(), "-m", "dropout_operator"]
    with running(command, folder / "operator.log", environment) as process:
        wait_until("the operator", lambda: _answers(f"http://127.0.0.1:{port}/readyz"), 60, process)
        wait_until("all jobs to be shown", lambda: _shown(port) >= 200, 60, process)
        yield process


def _operator_python() -> Path:
    """An environment with the operator's requirements alone, as in its image; kept in the cache."""
    cache = Path(os.environ.get("CACHE", Path.home() / ".cache/dropout-operator")) / "venv-bench-operator"
    if not (cache / "bin/kopf").exists():
        subprocess.run([sys.executable, "-m", "venv", cache], check=True)
        command = [cache / "bin/pip", "install", "-q", "-c", ROOT / "constraints.txt", f"{ROOT}[operator]"]
        subprocess.run(command, check=True)
        subprocess.run([cache / "bin/pip", "uninstall", "-q", "-y", "dropout-operator"], check=True)
    return cache / "bin/python"


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _shown(port: int) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        return answer.read().decode().count("\ndropout_job_info{")


def _resident_mib(pid: int) -> float:
    text = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("VmRSS")) / 1024


@contextlib.contextmanager
def _job_times(plane: ControlPlane) -> Iterator[dict[str, float]]:
    """Clock readings at which a watch of Jobs told of each, by name."""
    seen: dict[str, float] = {}
    context = ssl._create_unverified_context()
    request = urllib.request.Request(f"{plane.url}{JOBS}?watch=true", headers={"Authorization": f"Bearer {TOKEN}"})
    stream = urllib.request.urlopen(request, context=context)

    def listen() -> None:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            for line in stream:
                event = json.loads(line)
                if event["type"] == "ADDED":
                    seen.setdefault(event["object"]["metadata"]["name"], time.perf_counter())

    threading.Thread(target=listen, daemon=True).start()
    yield seen


def _bare_job(plane: ControlPlane, seen: dict[str, float], number: int) -> float:
    name = f"bare-{number}"
    pod = {"restartPolicy": "Never", "containers": [{"name": "train", "image": "trainer:dev"}]}
    began = time.perf_counter()
    plane.request("POST", JOBS, {"metadata": {"name": name}, "spec": {"suspend": True, "template": {"spec": pod}}})
    wait_until(name, lambda: name in seen, 30)
    return seen[name] - began


def _steady_stream(plane: ControlPlane, seen: dict[str, float], count: int) -> list[float]:
    began: dict[str, float] = {}
    start = time.perf_counter()
    for number in range(count):
        time.sleep(max(0.0, start + number * EVERY_SECONDS - time.perf_counter()))  # the load itself: one job every two seconds
        began[f"load-{number}"] = time.perf_counter()
        plane.request("POST", DTJ, _job(f"load-{number}"))
    wait_until("every train Job", lambda: all(f"{name}-1" in seen for name in began), 60)
    return [seen[f"{name}-1"] - moment for name, moment in began.items()]
