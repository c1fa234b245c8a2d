"""A task's record: where it waits for MLflow, and how it ends."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import gettempdir

from dropout_api.task import Attempt
from dropout_trainer.train.checkpoints.folder import local_folder
from dropout_trainer.train.tracking.machine import own_machine
from dropout_trainer.train.tracking.recorder import Tracking, mlflow_client
from dropout_trainer.train.tracking.writes import Client

FOLDER = "tracking"
OUTAGE_SECONDS = 300.0
"""How long MLflow may be away at the end of a training before what it has not taken is given up."""
log = logging.getLogger(__name__)


def tracking_of(task: Attempt, connect: Callable[[], Client] = mlflow_client) -> Tracking:
    """The record of a task's run. It spools beside the job's checkpoints where these lie in a folder, and so outlives the pod; else in the
    pod's scratch."""
    beside = local_folder(task.checkpoints) if task.checkpoints and task.spec.checkpoint else None
    return Tracking(task.run.id, connect, spool=(beside or Path(gettempdir())) / FOLDER, lasting=beside is not None, machine=own_machine())


def hand_over(tracking: Tracking, files: Sequence[Path]) -> None:
    """Uploads the candidate and sees the rest of the record through. Raises StageFailure when MLflow does not take the candidate."""
    tracking.upload(files, OUTAGE_SECONDS)
    if missing := tracking.drain(OUTAGE_SECONDS):
        log.warning("%d writes to MLflow are lost: its run shows less than was trained", missing)
