"""Checkpoints of a loop of the user's own, in the folder and the form of the trainer's: safetensors and JSON, named by digests."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Annotated

from pydantic import Field, JsonValue, ValidationError
from torch import Tensor, nn

from dropout_api.builtins import describe
from dropout_api.task import CommandTask
from dropout_trainer.loop import parts as parts_
from dropout_trainer.loop.parts import Part
from dropout_trainer.train.checkpoints import schema
from dropout_trainer.train.checkpoints.fitting import unrestorable
from dropout_trainer.train.checkpoints.folder import Folder, Refused, folder_at, opened
from dropout_trainer.train.checkpoints.read import (
    COPIES,
    HEADER_BYTES,
    SAID,
    STATE_BYTES,
    newest,
    own_manifest,
    tensors_in,
    verified,
)
from dropout_trainer.train.checkpoints.saver import Writer
from dropout_trainer.train.checkpoints.schema import File, Identity, Manifest, identity
from dropout_trainer.train.points import Points
from dropout_trainer.train.state import GlobalStreams, Saved

NO_DATA = hashlib.sha256().hexdigest()
"""Digest of the data in a checkpoint's identity: the program brings them, so here nothing is known of them."""
REQUIRED = {schema.Part.STATE, schema.Part.MOVING}


class Bookmark(Saved):
    """`NUMBER.state.json` of a loop of the user's own: how far it has come, all but the tensors."""

    epoch: Annotated[int, Field(ge=1)]
    """The latest that has ended."""
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    """Of all epochs."""
    parts: list[str]
    """Class of each part."""
    states: list[JsonValue]
    """Of each part, see `states.split`."""
    streams: GlobalStreams
    """Of rank 0."""
    others: list[GlobalStreams] = []
    """Of the ranks above it that torch.distributed knows of, in order."""
    last: dict[str, float] = {}
    """What was last told of the loop."""
    unsent: list[Points] = []
    """What waits for MLflow and lies in no spool that outlives the pod."""


@dataclass(frozen=True)
class Content:
    """All that goes into a checkpoint, copied. `unsent` is asked by the writer: what it returns goes into the bookmark."""

    bookmark: Bookmark
    tensors: dict[str, Tensor]
    unsent: Callable[[], list[Points]] = list


@dataclass(frozen=True)
class Found:
    """A checkpoint that has been loaded."""

    number: int
    manifest: Manifest
    bookmark: Bookmark


class Keeper(Writer[Content]):
    """Writes a loop's checkpoints."""

    def _write(self, number: int, content: Content) -> dict[schema.Part, File]:
        bookmark = content.bookmark.model_copy(update={"unsent": content.unsent()})
        return {
            schema.Part.MOVING: self._put(number, schema.Part.MOVING, content.tensors),
            schema.Part.STATE: self._put(number, schema.Part.STATE, bookmark.to_json().encode()),
        }


def place_of(task: CommandTask, writes: bool) -> tuple[Folder, Identity] | None:
    """Where the job's checkpoints lie, and what marks them as its own; None for a job that keeps none.

    Raises StageFailure when the folder cannot be opened, or cannot be written by a process that `writes`.
    """
    if task.checkpoints is None or task.spec.checkpoint is None:
        return None
    return (folder_at if writes else opened)(task.checkpoints), identity(task.run.id, task.spec, NO_DATA)


def load_latest(folder: Folder, mine: Identity, parts: Sequence[Part]) -> Found | None:
    """Loads the newest checkpoint that is whole and fits into `parts`; None when there is none, which is told when others are there.

    Raises StageFailure when the folder cannot be read: that must not make a training start over.
    """
    return newest(folder, lambda number: _load(folder, number, mine, parts))


def _load(folder: Folder, number: int, mine: Identity, parts: Sequence[Part]) -> Found:
    manifest = own_manifest(folder, number, mine, REQUIRED)
    file = manifest.files[schema.Part.STATE]
    try:
        bookmark = Bookmark.model_validate_json(verified(folder, file, STATE_BYTES))
    except ValidationError as error:
        raise Refused(describe(error, file.name)[:SAID]) from None
    if (own := parts_.kinds(parts)) != bookmark.parts or len(bookmark.states) != len(own):
        raise Refused(f"state: it is of {', '.join(bookmark.parts)}, but the program hands over {', '.join(own)}")
    if problem := next(chain.from_iterable(map(unrestorable, (bookmark.streams, *bookmark.others))), None):
        raise Refused(problem)
    tensors = tensors_in(folder, manifest.files[schema.Part.MOVING], _most(parts))
    parts_.restore(parts, bookmark.states, tensors)
    return Found(number, manifest, bookmark)


def _most(parts: Sequence[Part]) -> int:
    """Bytes that the tensors can have: of each model, itself and what optimisers keep of it."""
    models = [part for part in parts if isinstance(part, nn.Module)]
    own = sum(tensor.nbytes for model in models for tensor in (*model.parameters(), *model.buffers()))
    return 2 * COPIES * own + HEADER_BYTES
