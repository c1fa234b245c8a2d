"""Where a training computes: the device that the job asks for, and as many threads as it was promised."""

import logging
import math
import os
import sys
from pathlib import Path

import torch

from dropout_api.pod import GPU_PREFIX, ResourceRequirements

CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")
log = logging.getLogger(__name__)


def pick_device(resources: ResourceRequirements) -> torch.device:
    """The GPU when one is asked for and torch can use it, else the CPU; asked for in vain, it says so."""
    asked = any(name.startswith(GPU_PREFIX) for name in resources.limits)
    if asked and not torch.cuda.is_available():
        log.warning("the job asks for a GPU, but torch %s finds none here; training on the CPU", torch.__version__)
    return torch.device("cuda" if asked and torch.cuda.is_available() else "cpu")


def usable_threads(resources: ResourceRequirements, quota: Path = CPU_QUOTA) -> int:
    """Threads for torch, 1 at least: as many whole cores as the job requests, and no more than there are.

    Without a request the container's limit decides, else the node. Threads beyond what is promised wait for each other's
    time slices on a busy node, which made an epoch of the digits ten times as long; and their number decides the last
    bits of a sum, so the same spec should have the same number on any node.
    """
    cores = min(usable_cores(), _limit(quota))
    request = resources.requests.get("cpu")
    return cores if request is None else max(1, math.ceil(min(cores, _cores(request))))


def usable_cores() -> int:
    """Of this machine; where the system tells no affinity, as macOS, all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cores(quantity: str | int) -> float:
    """A Kubernetes CPU quantity, as `500m`, `2` or `0.5`; infinite when it is of a rarer form."""
    text = str(quantity)
    try:
        return float(text.removesuffix("m")) / (1000 if text.endswith("m") else 1)
    except ValueError:
        return math.inf


def _limit(quota: Path) -> int:
    """Cores by the container's limit, from a file of quota and period in microseconds
    (https://docs.kernel.org/admin-guide/cgroup-v2.html#cpu-interface-files)."""
    try:
        limit, period = quota.read_text().split()
        return sys.maxsize if limit == "max" else max(1, math.ceil(int(limit) / int(period)))
    except (OSError, ValueError):
        return sys.maxsize
