"""The start of a program that a job runs through spec.command."""

import atexit
import logging
import os
from contextlib import ExitStack

import torch

from dropout_api.names import Env, ExitCode, Torchrun
from dropout_api.task import CommandTask
from dropout_trainer.errors import StageFailure
from dropout_trainer.loop.ending import report_endings
from dropout_trainer.loop.job import Job
from dropout_trainer.loop.recording import Recorder
from dropout_trainer.stage import read_task
from dropout_trainer.train.device import pick_device, usable_threads
from dropout_trainer.train.ending import noting, stoppable
from dropout_trainer.train.seeds import derive, seed_everything, set_determinism

NO_JOB = (
    "dropout_trainer.loop.start() found no job in this process; name this program in spec.command of a manifest, and start that with "
    "`dropout run job.yaml` or kubectl apply"
)
_signals = ExitStack()
"""Open as long as the process lives."""


def start() -> Job:
    """The job of this process. To be called first: seeds, threads and determinism are set here, and what comes after is repeatable.

    Of several processes (torchrun's RANK) each gets seeds of its own for what draws masks; rank 0 alone records. From here on an uncaught
    exception ends the process with the job's exit code and a report. Raises StageFailure when no job has started this process.
    """
    report_endings()
    _log_lines()
    if Env.TASK not in os.environ:
        raise StageFailure("TaskMissing", NO_JOB, ExitCode.USAGE)
    task = read_task(CommandTask)
    spec, rank = task.spec, int(os.environ.get(Torchrun.RANK, "0"))
    torch.set_num_threads(max(1, usable_threads(spec.resources_per_node) // spec.processes))
    set_determinism(spec.determinism)
    seeds, device = derive(spec.seed, rank), _device(task)
    seed_everything(seeds)
    keeps = task.checkpoints is not None and spec.checkpoint is not None
    stopped = _signals.enter_context(noting()) if keeps else _stopped_at_once()
    job = Job(task, rank, device, seeds, stopped, Recorder(task) if rank == 0 else None)
    atexit.register(job.close)
    report_endings(job.reached)
    if job.recorder:
        job.recorder.begin(seeds, device)
    return job


def _device(task: CommandTask) -> torch.device:
    device = pick_device(task.spec.resources_per_node)
    if device.type == "cuda" and torch.cuda.device_count() > 1:
        return torch.device("cuda", int(os.environ.get(Torchrun.LOCAL_RANK, "0")))
    return device


def _stopped_at_once() -> "type[int]":
    """Where there is nothing to save a signal ends the training as it comes, so it is never asked for; int() is 0."""
    _signals.enter_context(stoppable())
    return int


def _log_lines() -> None:
    """This package's lines go to stderr, whatever the program does with its own logging."""
    ours = logging.getLogger("dropout_trainer")
    if not ours.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(message)s"))
        ours.addHandler(handler)
        ours.setLevel(logging.INFO)
