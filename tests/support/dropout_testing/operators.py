"""The operator as a process of its own: started, killed, started again."""

import contextlib
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from dropout_testing.control_plane import ControlPlane
from dropout_testing.jobs import SYSTEM
from dropout_testing.mlflow_server import MlflowServer
from dropout_testing.processes import end_group, free_port, wait_until

ROOT = Path(__file__).resolve().parents[3]
SOURCES = [ROOT / "crds", ROOT / "operator", ROOT / "tests/support"]


@dataclass
class OperatorProcess:
    """One operator. `api` and `mlflow_url` may be those of a proxy."""

    plane: ControlPlane
    mlflow: MlflowServer
    folder: Path
    api: str | None = None
    mlflow_url: str | None = None
    module: str = "dropout_operator"
    environment: dict[str, str] = field(default_factory=dict)
    port: int | None = None
    """Of its HTTP server; a free one when None."""
    _process: "subprocess.Popen[bytes] | None" = None
    _port: int = 0

    @property
    def log(self) -> Path:
        return self.folder / "operator.log"

    def start(self, ready: bool = True) -> None:
        """Starts it and, by default, waits until it has listed the training jobs."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._port = self.port or free_port()
        environment = {
            **os.environ, **self.mlflow.operator_environment(), "KUBECONFIG": str(self.plane.kubeconfig(self.api)),
            "PYTHONPATH": ":".join(map(str, SOURCES)), "DROPOUT_NAMESPACE": SYSTEM, "DROPOUT_TRAINER_IMAGE": "trainer:test",
            "DROPOUT_PORT": str(self._port), "DROPOUT_POLL_SECONDS": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "15", **self.environment,
        }
        if self.mlflow_url:
            environment["DROPOUT_MLFLOW_URI"] = self.mlflow_url
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-W", "error::RuntimeWarning", "-m", self.module], env=environment, stdout=output,
                stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True,
            )
        if ready:
            wait_until("the operator", self.ready, 90, self._process)

    def ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/readyz", timeout=1) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def metrics(self) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/metrics", timeout=5) as answer:
            text: str = answer.read().decode()
            return text

    def kill(self) -> None:
        """SIGKILL: nothing is cleaned up."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def stop(self) -> int:
        """As the kubelet ends a pod. Gives the exit code."""
        assert self._process is not None
        end_group(self._process, 20.0)
        return int(self._process.returncode)

    def bugs(self) -> list[str]:
        """Lines of the log that must never be there."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [line for line in lines if "this is a bug" in line or "never awaited" in line or "does not settle" in line]


@contextlib.contextmanager
def operating(operator: OperatorProcess) -> Iterator[OperatorProcess]:
    """Runs it until the test is over; what its log must not hold fails the test."""
    operator.start()
    try:
        yield operator
    finally:
        operator.stop()
    assert operator.bugs() == []
