"""Torch gets the device that the job asks for where there is one, and as many threads as it was promised."""

import os
from pathlib import Path

import pytest
import torch

from dropout_api.pod import ResourceRequirements
from dropout_trainer.train.device import pick_device, usable_threads


@pytest.mark.parametrize(("content", "expected"), [
    ("50000 100000", 1), ("100000 100000", 1), ("110000 100000", 2), ("max 100000", 64), ("?", 64),
])
def test_threads_follow_the_quota(content: str, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    (tmp_path / "cpu.max").write_text(content)
    assert usable_threads(ResourceRequirements(), tmp_path / "cpu.max") == expected
    assert usable_threads(ResourceRequirements(), tmp_path / "none") == 64


@pytest.mark.parametrize(("cpu", "expected"), [("500m", 1), ("1500m", 2), (3, 3), ("0.5", 1), ("500", 64), ("2k", 64), (0, 1)])
def test_threads_follow_the_request(cpu: str | int, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    assert usable_threads(ResourceRequirements(requests={"cpu": cpu}), tmp_path / "none") == expected


def test_a_gpu_asked_for_in_vain_is_a_warning(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device(ResourceRequirements(limits={"nvidia.com/gpu": 1})) == torch.device("cpu")
    assert "training on the CPU" in caplog.text


def test_a_gpu_is_used_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pick_device(ResourceRequirements()) == torch.device("cpu")
    assert pick_device(ResourceRequirements(limits={"nvidia.com/mig-1g.10gb": 1})) == torch.device("cuda")
