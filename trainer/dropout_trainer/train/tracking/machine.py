"""What the container uses of its machine, from its cgroup (version 2), under the names that MLflow's pages show as system metrics.

MLflow's own monitor asks psutil, which tells a container about the whole host, and NVML, which tells of every GPU that it sees.
Source: https://docs.kernel.org/admin-guide/cgroup-v2.html
"""

import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

CGROUP = Path("/sys/fs/cgroup")
PREFIX = "system/"
MEGABYTE = 1e6


@dataclass(frozen=True)
class _Usage:
    seconds: float
    cpu_seconds: float
    periods: int
    throttled_periods: int


class Machine:
    """The cgroup in `folder`, which is the container's own in a container. `clock` is in seconds.

    Raises OSError or ValueError where there is none, as on a host's root.
    """

    def __init__(self, folder: Path = CGROUP, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder, self._clock = folder, clock
        self._memory()
        self._last = self._usage()

    def sample(self) -> dict[str, float]:
        """Since the last sample, or the start: CPU in percent of what may be used, the share of periods in which the limit on it
        stopped the container, and the memory that is used now; each with its limit where there is one; and what the GPUs say.

        Raises OSError and ValueError, and what a GPU that has failed raises.
        """
        before, now = self._last, self._usage()
        self._last = now
        seconds, periods = now.seconds - before.seconds, now.periods - before.periods
        cores = self._cores()
        found = self._memory() | {"cpu_limit_cores": cores}
        if seconds > 0:
            found["cpu_utilization_percentage"] = 100 * (now.cpu_seconds - before.cpu_seconds) / seconds / cores
        if periods > 0:
            found["cpu_throttled_percentage"] = 100 * (now.throttled_periods - before.throttled_periods) / periods
        return {PREFIX + name: round(value, 1) for name, value in (found | gpus()).items()}

    def _usage(self) -> _Usage:
        stat = _numbers(self._text("cpu.stat"))
        if "usage_usec" not in stat:
            raise ValueError("cpu.stat has no usage_usec")
        return _Usage(self._clock(), stat["usage_usec"] / 1e6, stat.get("nr_periods", 0), stat.get("nr_throttled", 0))

    def _cores(self) -> float:
        """The limit, or the processors that this process may run on."""
        quota, _, period = self._text("cpu.max", "max 100000").partition(" ")
        return int(quota) / int(period) if quota != "max" else float(_processors())

    def _memory(self) -> dict[str, float]:
        """In megabytes, without the cache of files that the kernel would drop at once: what a kubelet counts."""
        cache = _numbers(self._text("memory.stat", "")).get("inactive_file", 0)
        used, limit = max(int(self._text("memory.current")) - cache, 0), self._text("memory.max", "max")
        found = {"system_memory_usage_megabytes": used / MEGABYTE}
        if limit != "max":
            found |= {"system_memory_limit_megabytes": int(limit) / MEGABYTE, "system_memory_usage_percentage": 100 * used / int(limit)}
        return found

    def _text(self, name: str, default: str | None = None) -> str:
        try:
            return (self._folder / name).read_text().strip()
        except FileNotFoundError:
            if default is None:
                raise
            return default


def own_machine(folder: Path = CGROUP) -> Machine | None:
    """None where this process is in no cgroup of its own."""
    try:
        return Machine(folder)
    except (OSError, ValueError):
        return None


def gpus() -> dict[str, float]:
    """Of each GPU on which this process has memory: what all processes use of it, in megabytes and percent, and how busy it is in percent
    where the package nvidia-ml-py is there to say so and the GPU is a whole one."""
    found: dict[str, float] = {}
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return found
    for number in range(torch.cuda.device_count()):
        if not torch.cuda.memory_reserved(number):
            continue  # asking would take memory there
        free, total = torch.cuda.mem_get_info(number)
        found[f"gpu_{number}_memory_usage_megabytes"] = (total - free) / MEGABYTE
        found[f"gpu_{number}_memory_usage_percentage"] = 100 * (total - free) / total
        with suppress(Exception):  # NVML has a class of its own for each reason
            found[f"gpu_{number}_utilization_percentage"] = torch.cuda.utilization(number)
    return found


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _numbers(text: str) -> Mapping[str, int]:
    return {name: int(value) for name, value in (line.split() for line in text.splitlines())}
