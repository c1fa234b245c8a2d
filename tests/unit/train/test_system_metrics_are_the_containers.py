from importlib.metadata import distribution
from pathlib import Path

import pytest
import torch

from dropout_trainer.train.tracking import Machine, own_machine
from dropout_trainer.train.tracking import machine as module

FILES = {
    "cpu.stat": "usage_usec 1000000\nuser_usec 1\nnr_periods 100\nnr_throttled 10",
    "cpu.max": "200000 100000",
    "memory.current": "700000000",
    "memory.max": "1000000000",
    "memory.stat": "anon 1\ninactive_file 200000000\nactive_file 3",
}


def cgroup(folder: Path, **changed: str | None) -> Path:
    """Names with an underscore in place of the dot; None leaves a file out."""
    for name, text in (FILES | {name.replace("_", ".", 1): text for name, text in changed.items()}).items():
        (folder / name).unlink(missing_ok=True)
        if text is not None:
            (folder / name).write_text(text + "\n")
    return folder


def sampled(folder: Path, seconds: float, **changed: str | None) -> dict[str, float]:
    """After `seconds` in which the files have changed."""
    ticks = iter((100.0, 100.0 + seconds))
    machine = Machine(folder, lambda: next(ticks))
    cgroup(folder, **changed)
    return {name.removeprefix("system/"): value for name, value in machine.sample().items()}


def test_use_is_told_in_percent_of_the_containers_limits(tmp_path: Path) -> None:
    after = "usage_usec 11000000\nnr_periods 200\nnr_throttled 60"
    assert sampled(cgroup(tmp_path), 10, cpu_stat=after) == {
        "cpu_utilization_percentage": 50.0,  # ten seconds of two cores' twenty
        "cpu_limit_cores": 2.0,
        "cpu_throttled_percentage": 50.0,
        "system_memory_usage_megabytes": 500.0,
        "system_memory_usage_percentage": 50.0,
        "system_memory_limit_megabytes": 1000.0,
    }


def test_without_limits_no_percentage_of_the_hosts_memory_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_processors", lambda: 4)
    found = sampled(cgroup(tmp_path, memory_max="max", cpu_max="max 100000"), 10, memory_max="max", cpu_max="max 100000",
                    cpu_stat="usage_usec 11000000")
    assert found == {"cpu_utilization_percentage": 25.0, "cpu_limit_cores": 4.0, "system_memory_usage_megabytes": 500.0}


@pytest.mark.parametrize("missing", ["cpu_max", "memory_max", "memory_stat"])
def test_a_kernel_without_one_of_the_optional_files_is_served(tmp_path: Path, missing: str) -> None:
    assert sampled(cgroup(tmp_path, **{missing: None}), 1, **{missing: None})["system_memory_usage_megabytes"] >= 500


@pytest.mark.parametrize("changed", [{"cpu_stat": None}, {"memory_current": None}, {"memory_current": "?"}, {"cpu_stat": "user_usec 1"}])
def test_where_there_is_no_cgroup_there_are_no_system_metrics(tmp_path: Path, changed: dict[str, str | None]) -> None:
    assert own_machine(cgroup(tmp_path)) is not None
    assert own_machine(cgroup(tmp_path, **changed)) is None


def test_a_gpu_is_told_of_where_this_process_has_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"is_initialized": lambda: True, "device_count": lambda: 2, "memory_reserved": lambda number: number,
             "mem_get_info": lambda number: (3e9, 4e9), "utilization": lambda number: 75}
    for name, answer in found.items():
        monkeypatch.setattr(torch.cuda, name, answer)
    told = {name: value for name, value in sampled(cgroup(tmp_path), 10).items() if name.startswith("gpu")}
    assert told == {"gpu_1_memory_usage_megabytes": 1000, "gpu_1_memory_usage_percentage": 25, "gpu_1_utilization_percentage": 75}


def test_the_names_are_those_of_mlflows_pages(tmp_path: Path) -> None:
    source = Path(str(distribution("mlflow-skinny").locate_file("mlflow/system_metrics/metrics/cpu_monitor.py"))).read_text()
    shared = {"cpu_utilization_percentage", "system_memory_usage_megabytes", "system_memory_usage_percentage"}
    assert shared <= sampled(cgroup(tmp_path), 10).keys()
    assert all(f'"{name}"' in source for name in shared)
