"""What of a machine and its libraries decides the numbers of a training. Read, never set."""

import os
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from dropout_api._version import __version__

LIBRARIES = ("torch", "numpy", "mlflow", "torchmetrics", "safetensors", "pyarrow", "scikit-learn")
"""Whose versions are recorded, where they are installed."""
COMMIT_VARIABLES = ("GIT_COMMIT", "SOURCE_COMMIT", "CI_COMMIT_SHA", "GITHUB_SHA")
"""Where builds leave the commit of the user's code; set one in spec.image or spec.podTemplate.env."""
REVISION = "DROPOUT_REVISION"
"""Where the trainer's image keeps the commit that it was built from."""


def versions() -> dict[str, str]:
    """By name, of what a candidate must be read with."""
    found = {"python": platform.python_version(), "dropout-operator": __version__}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def environment(image: str | None, environ: Mapping[str, str] = os.environ) -> dict[str, object]:
    """Parameters for MLflow by name: image, commits, processor and the switches of torch that choose other algorithms."""
    cuda, backends = torch.backends.cuda, torch.backends
    result: dict[str, object] = {
        "image": image or "unknown", "git.commit": commit(environ), "git.dropout-operator": environ.get(REVISION, "unknown"),
        "cpu.architecture": platform.machine(), "cpu.capability": backends.cpu.get_cpu_capability(),
        "torch.deterministic": torch.are_deterministic_algorithms_enabled(),
        "torch.deterministic.warn_only": torch.is_deterministic_algorithms_warn_only_enabled(),
        "torch.float32_matmul_precision": torch.get_float32_matmul_precision(), "torch.mkldnn": backends.mkldnn.enabled,
        "torch.cudnn.benchmark": backends.cudnn.benchmark, "torch.sdpa": ",".join(_sdpa_backends(cuda)),
    }
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        result |= {"gpu": torch.cuda.get_device_name(), "torch.cuda": torch.version.cuda, "torch.cudnn": backends.cudnn.version(),  # type: ignore[no-untyped-call]
                   "cublas.workspace": environ.get("CUBLAS_WORKSPACE_CONFIG", "")}
    return result


def _sdpa_backends(cuda: object) -> list[str]:
    """Implementations of attention that torch may choose from: at one seed they draw other masks (pytorch issue 149726)."""
    asked = {"flash": "flash", "efficient": "mem_efficient", "cudnn": "cudnn", "math": "math"}
    return [name for name, part in asked.items() if getattr(cuda, f"{part}_sdp_enabled", bool)()]


def commit(environ: Mapping[str, str], folder: Path | None = None) -> str:
    """Of the user's code: from the variables of `COMMIT_VARIABLES`, else of the repository around `folder`, else `unknown`."""
    if told := next((environ[name] for name in COMMIT_VARIABLES if environ.get(name)), None):
        return told
    command = ["git", "-C", str(folder or Path.cwd()), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
