"""A job in this process, with a record that is a list."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from dropout_testing import own_loops
from dropout_testing.own_loops import MakeJob, Record

from dropout_api.names import Env
from dropout_api.task import CommandTask
from dropout_trainer.loop import job as job_
from dropout_trainer.loop import recording
from dropout_trainer.loop.job import Job
from dropout_trainer.loop.recording import Recorder
from dropout_trainer.train.seeds import derive


@pytest.fixture(autouse=True)
def _process_as_it_was() -> Iterator[None]:
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(strict)
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def make_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeJob:
    """A job of this rank under a spec; with `keeps` its checkpoints lie in the test's folder. `stopped` is the signal that has come."""
    monkeypatch.setattr(recording, "tracking_of", lambda task: Record(task.run.id))
    monkeypatch.setattr(recording, "METRICS_PORT", 0)
    monkeypatch.setenv(Env.TERMINATION_LOG, str(tmp_path / "report.json"))

    def make(rank: int = 0, keeps: bool = False, stopped: int = 0, attempt: int = 1, **spec: Any) -> Job:
        told = own_loops.task(["python", "train.py"], attempt=attempt, checkpoints=tmp_path / "checkpoints" if keeps else None, **spec)
        task = CommandTask.model_validate(told)
        return job_.Job(
            task, rank, torch.device("cpu"), derive(task.spec.seed, rank), lambda: stopped, Recorder(task) if rank == 0 else None,
        )

    return make
