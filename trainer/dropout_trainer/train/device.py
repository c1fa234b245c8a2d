"""Where a training computes: the device that the job asks for, and no more threads than the container may use."""

import logging
import math
import os
from pathlib import Path

import torch

from dropout_api.pod import ResourceRequirements

CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")
log = logging.getLogger(__name__)


def pick_device(resources: ResourceRequirements) -> torch.device:
    """The GPU when one is asked for and torch can use it, else the CPU; asked for in vain, it says so."""
    asked = any(name.startswith("nvidia.com/") for name in resources.limits)
    if asked and not torch.cuda.is_available():
        log.warning("the job asks for a GPU, but torch %s finds none here; training on the CPU", torch.__version__)
    return torch.device("cuda" if asked and torch.cuda.is_available() else "cpu")


def usable_threads(quota: Path = CPU_QUOTA) -> int:
    """Cores that this process may use, 1 at least: by affinity and by the container's limit.

    torch counts the node's cores; under a smaller limit its threads would wait for each other's time slices. The file
    holds quota and period in microseconds (https://docs.kernel.org/admin-guide/cgroup-v2.html#cpu-interface-files).
    """
    cores = len(os.sched_getaffinity(0))
    try:
        limit, period = quota.read_text().split()
    except (OSError, ValueError):
        return cores
    return cores if limit == "max" else min(cores, max(1, math.ceil(int(limit) / int(period))))
