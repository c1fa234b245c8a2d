"""A run of the cluster, with pods, a Service and a volume in it, leaves the machine as it was, however it ends."""

import json
import os
import shutil
import signal
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.cluster

IMAGE = "localhost/dropout-base:bookworm"
WORKLOAD = f"""
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: data}}
spec: {{accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 1Gi}}}}}}
---
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec: {{type: NodePort, selector: {{app: web}}, ports: [{{port: 80, targetPort: 8080, nodePort: 30080}}]}}
---
apiVersion: v1
kind: Pod
metadata: {{name: web, labels: {{app: web}}}}
spec:
  securityContext: {{runAsUser: 1234, runAsNonRoot: true}}
  containers:
  - name: web
    image: {IMAGE}
    workingDir: /data
    command: [sh, -c, "echo written by $(id -u) > page && exec python3 -m http.server 8080"]
    readinessProbe: {{httpGet: {{port: 8080}}, periodSeconds: 1}}
    volumeMounts: [{{name: data, mountPath: /data}}]
  volumes: [{{name: data, persistentVolumeClaim: {{claimName: data}}}}]
---
apiVersion: v1
kind: Pod
metadata: {{name: missing}}
spec: {{containers: [{{name: missing, image: "registry.example/missing:1"}}]}}
"""


def page(address: str) -> str:
    """What the pod wrote. A pod is Ready a moment before kube-proxy has the way to it."""
    end = time.monotonic() + 5
    while True:
        try:
            with urllib.request.urlopen(f"http://{address}/page", timeout=5) as answer:
                return answer.read().decode().strip()
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


@pytest.fixture(autouse=True)
def down_in_the_end(cluster: Any) -> Iterator[None]:
    yield
    cluster.succeed("down")


def test_a_whole_run_leaves_nothing(cluster: Any) -> None:
    before = cluster.machine()
    kubeconfig = cluster.succeed("up")
    begin = time.monotonic()
    assert cluster.succeed("up") == kubeconfig
    assert time.monotonic() - begin < 3
    cluster.succeed("load", IMAGE)

    cluster.kubectl("apply", "-f", "-", stdin=WORKLOAD)
    cluster.kubectl("wait", "--for=condition=Ready", "pod/web", "--timeout=60s")
    address = cluster.kubectl("get", "service/web", "-o", "jsonpath={.spec.clusterIP}")
    pod = cluster.kubectl("get", "pod/web", "-o", "jsonpath={.status.podIP}")
    for way in (pod + ":8080", address, "10.44.0.1:30080"):
        assert page(way) == "written by 1234"
    asked = "import urllib.request as u; print(u.urlopen('http://web.default.svc.cluster.local/page').read().decode())"
    assert cluster.kubectl("exec", "web", "--", "python3", "-c", asked).strip() == "written by 1234"
    cluster.kubectl("wait", "--for=jsonpath={.status.containerStatuses[0].state.waiting}", "pod/missing", "--timeout=10s")
    assert "refused" in cluster.kubectl("get", "events", "--field-selector", "involvedObject.name=missing,type=Warning")

    volumes = cluster.home / "state/volumes"
    assert len(list(volumes.iterdir())) == 1
    cluster.kubectl("delete", "pod/web", "--grace-period=1")
    cluster.kubectl("delete", "pvc/data")
    end = time.monotonic() + 15
    while list(volumes.iterdir()) and time.monotonic() < end:
        time.sleep(0.1)
    assert not list(volumes.iterdir())

    records = [json.loads(line) for line in (cluster.home / "state/log/audit.log").read_text().splitlines()]
    assert {"Metadata"} == {record["level"] for record in records}
    assert any(record["verb"] == "create" and record.get("objectRef", {}).get("name") == "web" for record in records)

    cluster.succeed("down")
    assert cluster.left_behind(before) == {}
    cluster.succeed("down")
    assert cluster("status").returncode == 1


def test_down_copes_with_killed_components_and_the_next_run_has_the_images(cluster: Any) -> None:
    before = cluster.machine()
    cluster.succeed("up")
    cluster.succeed("load", IMAGE)
    cluster.kubectl("apply", "-f", "-", stdin=WORKLOAD)
    cluster.kubectl("wait", "--for=condition=Ready", "pod/web", "--timeout=60s")
    for component in ("kubelet", "containerd", "etcd"):
        os.kill(int((cluster.home / "state/run" / component).read_text()), signal.SIGKILL)

    assert cluster("status").returncode == 2
    refused = cluster("up")
    assert refused.returncode == 1
    assert "half up; run 'cluster down' first" in refused.stderr
    for component in ("kubelet", "containerd", "etcd"):
        assert f"the end of {component}'s log:" in refused.stderr
    cluster.succeed("down")
    assert cluster.left_behind(before) == {}

    cluster.succeed("up")
    assert "has it already" in cluster("load", IMAGE).stderr
    assert "failed to recover" not in (cluster.home / "state/log/containerd.log").read_text()
    assert cluster.kubectl("get", "pods", "--all-namespaces", "-o", "name") == ""
    cluster.succeed("down")
    assert cluster.left_behind(before) == {}


@pytest.mark.parametrize("component", ["etcd", "containerd"])
def test_a_failed_start_names_the_component_and_leaves_nothing(cluster: Any, tmp_path: Path, component: str) -> None:
    programs = tmp_path / "bin"
    shutil.copytree(cluster.programs, programs, copy_function=os.symlink)
    (programs / component).unlink()
    (programs / component).write_text("#!/bin/sh\necho out of order\nexit 3\n")
    (programs / component).chmod(0o755)
    before = cluster.machine()
    done = cluster.with_programs(programs)("up")
    assert done.returncode == 1
    assert f"cluster: {component} ended" in done.stderr
    assert "out of order" in done.stderr
    assert not (cluster.home / "state").exists()
    assert cluster.left_behind(before) == {}
