"""A real control plane on loopback: etcd, kube-apiserver, and kube-controller-manager for Jobs and garbage collection.

There is no kubelet: tests play it by writing a pod's status. Several may run at once, each on ports of its own.
"""

import contextlib
import json
import os
import shutil
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dropout_testing.processes import free_port, running, wait_until

Object = dict[str, Any]
TOKEN = "test-admin"
BINARIES = ("etcd", "kube-apiserver", "kube-controller-manager")


def find_binaries() -> Path | None:
    """The folder that holds the control plane's programs, None where they were not built."""
    default = Path.home() / ".cache/dropout-operator/cluster/bin"
    folder = Path(os.environ.get("CLUSTER_BIN", default))
    return folder if all((folder / name).exists() for name in BINARIES) else None


@dataclass
class ControlPlane:
    """A running API server and an administrator's access to it."""

    url: str
    folder: Path

    def kubeconfig(self, url: str | None = None, token: str = TOKEN) -> Path:
        """A kubeconfig for this server, or for a proxy before it."""
        path = self.folder / f"kubeconfig-{free_port()}"
        path.write_text(json.dumps({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": url or self.url, "insecure-skip-tls-verify": True}}],
            "users": [{"name": "test", "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        }))
        return path

    def request(self, method: str, path: str, body: Any = None, content: str = "application/json", token: str = TOKEN) -> Object:
        """Raises urllib's HTTPError, whose body holds the server's words."""
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(self.url + path, data, method=method, headers={
            "Authorization": f"Bearer {token}", "Content-Type": content, "Accept": "application/json"})
        with urllib.request.urlopen(request, context=_trusting(), timeout=30) as answer:
            result: Object = json.loads(answer.read())
            return result

    def get(self, path: str) -> Object | None:
        try:
            return self.request("GET", path)
        except urllib.error.HTTPError as error:
            if error.code == 404:
                error.close()
                return None
            raise

    def lines(self, path: str) -> Iterator[bytes]:
        """The lines of a watch, until the server ends it."""
        request = urllib.request.Request(self.url + path, headers={"Authorization": f"Bearer {TOKEN}", "Accept": "application/json"})
        with urllib.request.urlopen(request, context=_trusting(), timeout=60) as answer:
            yield from answer

    def serves(self, path: str) -> bool:
        """Whether a collection can be listed yet: a new CRD's answers 404, then 429, for a moment."""
        try:
            self.request("GET", path)
        except urllib.error.HTTPError as error:
            error.close()
            return False
        return True

    def refusal(self, method: str, path: str, body: Any, content: str = "application/json") -> str:
        """The message with which the server refuses a request that it must refuse."""
        try:
            self.request(method, path, body, content)
        except urllib.error.HTTPError as error:
            with error:
                return str(json.loads(error.read())["message"])
        raise AssertionError(f"{method} {path} was accepted")


def _trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@contextlib.contextmanager
def control_plane(folder: Path, binaries: Path) -> Iterator[ControlPlane]:
    """Starts it, waits until it is ready, ends it."""
    folder.mkdir(parents=True, exist_ok=True)
    etcd, peer, port = free_port(), free_port(), free_port()
    plane = ControlPlane(f"https://127.0.0.1:{port}", folder)
    (folder / "tokens.csv").write_text(f'{TOKEN},admin,admin-uid,"system:masters"\n')
    _service_account_key(folder)
    with contextlib.ExitStack() as stack:
        stack.enter_context(running([
            binaries / "etcd", "--data-dir", folder / "etcd", "--unsafe-no-fsync", "--listen-client-urls", f"http://127.0.0.1:{etcd}",
            "--advertise-client-urls", f"http://127.0.0.1:{etcd}", "--listen-peer-urls", f"http://127.0.0.1:{peer}",
            "--initial-advertise-peer-urls", f"http://127.0.0.1:{peer}", "--initial-cluster", f"default=http://127.0.0.1:{peer}",
        ], folder / "etcd.log"))
        server = stack.enter_context(running([
            binaries / "kube-apiserver", "--etcd-servers", f"http://127.0.0.1:{etcd}", "--secure-port", str(port),
            "--bind-address", "127.0.0.1", "--cert-dir", folder / "certs", "--token-auth-file", folder / "tokens.csv",
            "--authorization-mode", "RBAC",
            "--service-cluster-ip-range", "10.97.0.0/24", "--service-account-issuer", "https://kubernetes.default.svc",
            "--service-account-key-file", folder / "sa.pub", "--service-account-signing-key-file", folder / "sa.key",
            "--disable-admission-plugins", "ServiceAccount", "--endpoint-reconciler-type", "none",
        ], folder / "kube-apiserver.log"))
        wait_until("the API server", lambda: _ready(plane), 90, server)
        stack.enter_context(running([
            binaries / "kube-controller-manager", "--kubeconfig", plane.kubeconfig(), "--leader-elect=false", "--secure-port", "0",
            "--controllers", "job-controller,garbage-collector-controller,namespace-controller,pod-garbage-collector-controller",
            "--concurrent-gc-syncs", "5",
        ], folder / "kube-controller-manager.log"))
        yield plane
    shutil.rmtree(folder, ignore_errors=True)


def _ready(plane: ControlPlane) -> bool:
    try:
        request = urllib.request.Request(plane.url + "/readyz", headers={"Authorization": f"Bearer {TOKEN}"})
        with urllib.request.urlopen(request, context=_trusting(), timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _service_account_key(folder: Path) -> None:
    subprocess.run(["openssl", "genrsa", "-out", folder / "sa.key", "2048"], check=True, capture_output=True)
    subprocess.run(["openssl", "rsa", "-in", folder / "sa.key", "-pubout", "-out", folder / "sa.pub"], check=True, capture_output=True)
