"""What a checkpoint's two JSON files hold, and how its files are called."""

import hashlib
import math
import re
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from dropout_api.candidate import FileDigest
from dropout_api.model import Wire
from dropout_api.report import Sha256
from dropout_api.spec import JobSpec
from dropout_trainer.train.loop import EpochResult
from dropout_trainer.train.points import Points
from dropout_trainer.train.state import Position, Saved

NAME = re.compile(r"^(\d{8})\.(?:(?:model|best|good|moving)\.safetensors|(?:state|manifest)\.json)$")
DECISIVE = {"model", "data", "dropout", "training", "seed", "determinism"}
"""Fields of a job's spec that decide its curve; others, as its deadlines, may change between two attempts."""


class Part(StrEnum):
    """A file of a checkpoint. `best` and `good` are often an earlier checkpoint's."""

    STATE = "state"
    MODEL = "model"
    MOVING = "moving"
    BEST = "best"
    GOOD = "good"
    """Weights of the last epoch that has ended, should a loss become not finite."""


class Identity(Wire):
    """Whose checkpoint it is. All three must be equal."""

    run: str
    """The MLflow run's id."""
    spec: Sha256
    data: Sha256


class File(FileDigest):
    name: Annotated[str, Field(pattern=NAME.pattern)]


class Manifest(Wire):
    """Names every other file of a checkpoint."""

    version: Literal[1] = 1
    """Of another one nothing is read."""
    identity: Identity
    files: dict[Part, File]


def _timed(result: EpochResult) -> EpochResult:
    if not 0 <= result.seconds < math.inf:
        raise ValueError(f"seconds: {result.seconds} is no time")
    return result


Result = Annotated[EpochResult, AfterValidator(_timed)]


class Journal(Saved):
    """What has been made of a training's results so far."""

    ended: Annotated[list[dict[str, float]], Field(max_length=3000)] = []
    """Metrics of the trials that came before."""
    kept: Result | None = None
    """Of the training in progress: the epoch whose weights its model would end with."""
    last: Result | None = None
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Of all epochs, trials among them."""
    unsent: list[Points] = []
    """What waits for MLflow and lies in no spool that outlives the pod."""


class Record(Saved):
    """`NUMBER.state.json`."""

    position: Position
    best_epoch: Annotated[int, Field(ge=1)] | None = None
    good_epoch: Annotated[int, Field(ge=1)] | None = None
    journal: Journal = Journal()


def identity(run: str, spec: JobSpec, data_sha256: str) -> Identity:
    decisive = spec.model_dump_json(by_alias=True, include=DECISIVE | ({"command"} if spec.command else set()))
    if spec.world_size > 1:  # each rank draws its own masks
        decisive += f" in {spec.world_size} processes"
    return Identity(run=run, spec=hashlib.sha256(decisive.encode()).hexdigest(), data=data_sha256)


def file_name(number: int, part: Part) -> str:
    return f"{number:08}.{part}.{'json' if part is Part.STATE else 'safetensors'}"


def manifest_name(number: int) -> str:
    return f"{number:08}.manifest.json"


def number_of(name: str) -> int | None:
    """Of a checkpoint's file; None of any other."""
    found = NAME.match(name)
    return int(found[1]) if found else None
