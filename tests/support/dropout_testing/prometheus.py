"""A real Prometheus, on this machine, that scrapes the cluster's pods through the API server.

It goes by `kubectl proxy`, so that it works for any cluster that kubectl reaches, whatever its way to sign in. Pods are found
by asking kubectl, too: Debian builds its Prometheus without discovery in Kubernetes.
"""

import contextlib
import json
import shutil
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dropout_testing import cluster
from dropout_testing.processes import free_port, running, wait_until

CONFIG = """
global: {{scrape_interval: 1s, scrape_timeout: 1s}}
scrape_configs:
  - job_name: pods
    file_sd_configs: [{{files: ["{targets}"], refresh_interval: 1s}}]
    metric_relabel_configs:
      - {{source_labels: [__name__], regex: "dropout_.*|up", action: keep}}
"""
ANNOTATION = "prometheus.io"


@dataclass(frozen=True)
class Prometheus:
    """A running Prometheus server."""

    url: str

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """The instant vector of a PromQL expression: labels and value of each series."""
        url = f"{self.url}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            result = json.loads(answer.read())["data"]["result"]
        return [(series["metric"], float(series["value"][1])) for series in result]

    def value(self, expression: str) -> float | None:
        """The value of a single series, None while there is none."""
        found = self.query(expression)
        return found[0][1] if found else None


def available() -> bool:
    return shutil.which("prometheus") is not None


@contextlib.contextmanager
def prometheus(folder: Path) -> Iterator[Prometheus]:
    """Starts it and `kubectl proxy`, waits until it is ready, ends both."""
    folder.mkdir(parents=True, exist_ok=True)
    proxy, port = free_port(), free_port()
    targets = folder / "targets.json"
    targets.write_text("[]")
    (folder / "prometheus.yml").write_text(CONFIG.format(targets=targets))
    server = Prometheus(f"http://127.0.0.1:{port}")
    with contextlib.ExitStack() as stack:
        stack.enter_context(running(["kubectl", "proxy", "--port", str(proxy)], folder / "proxy.log"))
        process = stack.enter_context(running([
            "prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ], folder / "prometheus.log"))
        wait_until("Prometheus", lambda: _ready(server.url), 30, process)
        stack.enter_context(_discovering(targets, proxy))
        yield server


@contextlib.contextmanager
def _discovering(targets: Path, proxy: int) -> Iterator[None]:
    """Keeps the file of targets up to date with the pods that run and ask to be scraped."""
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            with contextlib.suppress(AssertionError, OSError):
                fresh = targets.with_suffix(".new")
                fresh.write_text(json.dumps(found_targets(json.loads(cluster.kubectl("get", "pods", "-A", "-o", "json"))["items"], proxy)))
                fresh.replace(targets)
            stop.wait(1.0)

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    try:
        yield
    finally:
        stop.set()
        worker.join()


def found_targets(pods: list[cluster.Object], proxy: int) -> list[cluster.Object]:
    """Prometheus's targets (file_sd) for the pods that run and carry the annotation prometheus.io/scrape."""
    targets = []
    for pod in pods:
        meta, annotations = pod["metadata"], pod["metadata"].get("annotations", {})
        if annotations.get(f"{ANNOTATION}/scrape") != "true" or pod["status"].get("phase") != "Running":
            continue
        port, path = annotations.get(f"{ANNOTATION}/port", "8080"), annotations.get(f"{ANNOTATION}/path", "/metrics")
        through = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}:{port}/proxy{path}"
        labels = {"__metrics_path__": through, "pod": meta["name"], "pod_namespace": meta["namespace"]}
        targets.append({"targets": [f"127.0.0.1:{proxy}"], "labels": labels | {"instance": meta["name"]}})
    return targets


def _ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/-/ready", timeout=1) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
