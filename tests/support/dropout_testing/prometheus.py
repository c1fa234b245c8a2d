"""A real Prometheus, on this machine, that finds pods through the API server and scrapes them through it.

It goes by `kubectl proxy`, so that it works for any cluster that kubectl reaches, whatever its way to sign in.
"""

import contextlib
import json
import shutil
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dropout_testing.processes import free_port, running, wait_until

CONFIG = """
global: {{scrape_interval: 1s, scrape_timeout: 1s}}
scrape_configs:
  - job_name: pods
    kubernetes_sd_configs: [{{role: pod, api_server: "http://127.0.0.1:{proxy}"}}]
    relabel_configs:
      - {{source_labels: [__meta_kubernetes_pod_annotation_prometheus_io_scrape], regex: "true", action: keep}}
      - {{source_labels: [__meta_kubernetes_pod_phase], regex: Running, action: keep}}
      - source_labels: [__meta_kubernetes_namespace, __meta_kubernetes_pod_name, __meta_kubernetes_pod_annotation_prometheus_io_port]
        regex: (.+);(.+);(.+)
        target_label: __metrics_path__
        replacement: /api/v1/namespaces/$1/pods/$2:$3/proxy/metrics
      - {{target_label: __address__, replacement: "127.0.0.1:{proxy}"}}
      - {{source_labels: [__meta_kubernetes_namespace], target_label: pod_namespace}}
      - {{source_labels: [__meta_kubernetes_pod_name], target_label: pod}}
    metric_relabel_configs:
      - {{source_labels: [__name__], regex: "dropout_.*|up", action: keep}}
"""


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
    (folder / "prometheus.yml").write_text(CONFIG.format(proxy=proxy))
    server = Prometheus(f"http://127.0.0.1:{port}")
    with contextlib.ExitStack() as stack:
        stack.enter_context(running(["kubectl", "proxy", "--port", str(proxy)], folder / "proxy.log"))
        process = stack.enter_context(running([
            "prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ], folder / "prometheus.log"))
        wait_until("Prometheus", lambda: _ready(server.url), 30, process)
        yield server


def _ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/-/ready", timeout=1) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
