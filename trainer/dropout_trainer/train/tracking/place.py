"""Where a task's record waits for MLflow."""

from collections.abc import Callable
from pathlib import Path
from tempfile import gettempdir

from dropout_api.task import Attempt
from dropout_trainer.train.tracking.machine import own_machine
from dropout_trainer.train.tracking.recorder import Tracking, mlflow_client
from dropout_trainer.train.tracking.writes import Client

FOLDER = "tracking"


def tracking_of(task: Attempt, connect: Callable[[], Client] = mlflow_client) -> Tracking:
    """The record of a task's run. It spools beside the job's checkpoints where these lie in a folder, and so outlives the pod; else in the
    pod's scratch."""
    beside = local_folder(task.checkpoints) if task.checkpoints and task.spec.checkpoint else None
    return Tracking(task.run.id, connect, spool=(beside or Path(gettempdir())) / FOLDER, lasting=beside is not None, machine=own_machine())


def local_folder(uri: str) -> Path | None:
    """None for a URI that fsspec must open."""
    path = uri.removeprefix("file://")
    return None if "://" in path else Path(path)
