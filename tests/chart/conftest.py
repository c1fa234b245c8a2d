"""The chart's files and the helm binary."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "dropout-operator"
CACHES = (Path.home() / ".cache/dropout-operator/cluster/bin/helm", Path.home() / ".cache/dropout-cluster/bin/helm")
Render = Callable[..., list[dict[str, Any]]]


def find_helm() -> str | None:
    candidates = [os.environ.get("HELM"), shutil.which("helm"), *(str(path) for path in CACHES)]
    return next((path for path in candidates if path and os.access(path, os.X_OK)), None)


@pytest.fixture(scope="session")
def helm() -> str:
    """Path of the helm binary. Where there is none the test is skipped, on CI it fails."""
    found = find_helm()
    if found is None:
        reason = "helm is not here: set HELM, or build it with hack/cluster"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    return found


@pytest.fixture(scope="session")
def render(helm: str, tmp_path_factory: pytest.TempPathFactory) -> Render:
    """`helm template` with these values; the objects that came out."""

    def run(values: dict[str, Any] | None = None, *options: str, release: str = "dropout-operator") -> list[dict[str, Any]]:
        file = tmp_path_factory.mktemp("values") / "values.yaml"
        file.write_text(yaml.safe_dump(values or {}))
        command = [helm, "template", release, str(CHART), "--namespace", "dropout-system", "--values", str(file), *options]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            raise ChartError(done.stderr)
        return [item for item in yaml.safe_load_all(done.stdout) if item]

    return run


class ChartError(Exception):
    """Helm refused."""


@pytest.fixture(scope="session")
def everything() -> dict[str, Any]:
    """Values that turn every option on."""
    return yaml.safe_load((CHART / "ci" / "everything-values.yaml").read_text())
