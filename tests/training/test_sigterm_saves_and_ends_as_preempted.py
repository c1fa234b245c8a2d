"""SIGTERM with checkpoints: what is there is saved at the next step's end, the stage ends with 75 and says Preempted, and the next attempt
goes on from that very step. Without anything saved it is an ordinary end by SIGTERM."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from dropout_testing.attempts import RUN, Record

from dropout_api.names import Env, ExitCode
from dropout_trainer.train import run
from dropout_trainer.train.checkpoints.folder import LocalFolder
from dropout_trainer.train.ending import run_stage
from dropout_trainer.train.precision import Step

STEPS = 15
"""Of an epoch."""


@pytest.fixture(autouse=True)
def _torch_as_it_was() -> Iterator[None]:
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(strict)


@pytest.fixture
def attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], tuple[int, dict[str, Any]]]:
    """Runs the stage; returns its exit code and its report."""
    report = tmp_path / "termination-log"
    monkeypatch.setenv(Env.TERMINATION_LOG, str(report))
    monkeypatch.setattr(run, "METRICS_PORT", 0)
    monkeypatch.setattr(run, "tracking_of", lambda task: Record(tmp_path))
    spec = {
        "model": {"factory": "dropout_testing.attempts:network"}, "data": {"factory": "dropout_testing.attempts:data"},
        "training": {"epochs": 3, "batchSize": 8}, "checkpoint": {"volumeClaim": "c"}, "resourcesPerNode": {"limits": {"cpu": "1"}},
    }
    task = {"job": {"cluster": "c", "namespace": "n", "name": "x", "uid": "u"}, "run": {"id": RUN, "experimentId": "1"}, "spec": spec,
            "checkpoints": str(tmp_path / "checkpoints")}

    def once(number: int) -> tuple[int, dict[str, Any]]:
        monkeypatch.setenv(Env.TASK, json.dumps(task | {"attempt": number}))
        code = run_stage()
        return code, json.loads(report.read_text())

    return once


def stop_at(step: int) -> Callable[[Step], None]:
    update, steps = Step.update, iter(range(1, 1000))

    def update_then_stop(self: Step) -> None:
        update(self)
        if next(steps) == step:
            os.kill(os.getpid(), signal.SIGTERM)

    return update_then_stop


def epochs(tmp_path: Path) -> list[int]:
    return [step for step, values in map(json.loads, (tmp_path / "points").read_text().splitlines()) if "val_loss" in values]


def test_in_the_middle_of_an_epoch(attempt: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    with monkeypatch.context() as patched:
        patched.setattr(Step, "update", stop_at(STEPS + 4))
        code, report = attempt(1)
    assert code == ExitCode.PREEMPTED
    message = "training was stopped by SIGTERM after epoch 1 of 3; its checkpoint is saved"
    assert report == {"stage": "train", "reason": "Preempted", "message": message}
    code, report = attempt(2)
    assert (code, report["epoch"]) == (0, 3)
    assert "goes on from checkpoint 2: epoch 2, batch 4" in caplog.text
    assert epochs(tmp_path) == [1, 2, 3]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_while_exporting(attempt: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(run, "write_all", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        assert attempt(1)[0] == ExitCode.PREEMPTED
    assert attempt(2)[0] == 0
    assert epochs(tmp_path) == [1, 2, 3]


def test_before_anything_is_saved(attempt: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> NoReturn:
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError

    monkeypatch.setattr(run, "training_on", stop)
    code, report = attempt(1)
    assert (code, report["reason"]) == (143, "Terminated")


def test_when_nothing_can_be_saved(attempt: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: LocalFolder, name: str, content: bytes) -> None:
        if content:
            raise OSError(28, "No space left on device")
        write(self, name, content)

    write = LocalFolder.write
    monkeypatch.setattr(LocalFolder, "write", fail)
    monkeypatch.setattr(Step, "update", stop_at(2))
    code, report = attempt(1)
    assert (code, report["reason"]) == (143, "Terminated")
