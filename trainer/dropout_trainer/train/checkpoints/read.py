"""The newest checkpoint that can be used. What cannot is refused with the reason, and the one before it is looked at."""

import hashlib
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TypeVar

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from dropout_api.builtins import describe
from dropout_trainer.train.checkpoints.fitting import problems, unlike
from dropout_trainer.train.checkpoints.folder import Folder, Refused
from dropout_trainer.train.checkpoints.schema import (
    File,
    Identity,
    Journal,
    Manifest,
    Part,
    Record,
    manifest_name,
    number_of,
)
from dropout_trainer.train.loop import Training
from dropout_trainer.train.state import Captured
from dropout_trainer.train.stopping import Snapshot, tensors_of

MANIFEST_BYTES, STATE_BYTES = 1 << 16, 1 << 26
HEADER_BYTES, COPIES = 1 << 24, 4
"""A file of tensors may be as large as so many copies of the model and a header."""
SAID = 300
"""Characters of what is wrong with a file."""
REQUIRED = {Part.STATE, Part.MODEL, Part.MOVING}
R = TypeVar("R")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Resumption:
    """A checkpoint, verified, and its files for the next ones that may refer to them."""

    number: int
    manifest: Manifest
    captured: Captured
    good: Snapshot | None
    journal: Journal

    def __str__(self) -> str:
        at, trial = self.captured.position, len(self.journal.ended)
        return f"checkpoint {self.number}: epoch {at.epoch}, batch {at.batch}" + (f", after {trial} trials" if trial else "")


def latest(folder: Folder, mine: Identity, training_after: Callable[[int], Training]) -> Resumption | None:
    """The newest checkpoint of `mine` that is whole and fits its training; None when there is none, which is told when others are there.

    `training_after` gives the job's training that follows so many ended ones, or raises Refused when there is none; its model is as good
    as any of them.

    Raises StageFailure when the folder cannot be read: that must not make a training start over.
    """
    return newest(folder, lambda number: _read(folder, number, mine, training_after))


def newest(folder: Folder, read: Callable[[int], R]) -> R | None:
    """What `read` makes of the newest checkpoint that it does not refuse; None when there is none, which is told when there are any."""
    numbers = manifests(folder)
    for number in reversed(numbers):
        try:
            return read(number)
        except Refused as why:
            log.warning("checkpoint %d is refused: %s", number, why)
    if numbers:
        log.warning("none of %d checkpoints can be used; training starts from its first epoch", len(numbers))
    return None


def manifests(folder: Folder) -> list[int]:
    """Numbers of the checkpoints that were written to their end, in order."""
    found = ((name, number_of(name)) for name in folder.names())
    return sorted(number for name, number in found if number is not None and name == manifest_name(number))


def manifest_of(folder: Folder, number: int) -> Manifest:
    """Raises Refused when it cannot be read as one."""
    name = manifest_name(number)
    try:
        return Manifest.model_validate_json(_bounded(folder, name, MANIFEST_BYTES))
    except ValidationError as error:
        raise Refused(describe(error, name)[:SAID]) from None


def foreign(folder: Folder, mine: Identity) -> set[str]:
    """Files of checkpoints that are another run's, which are not ours to remove."""
    theirs = set[str]()
    for number in manifests(folder):
        try:
            manifest = manifest_of(folder, number)
        except Refused:
            continue
        if manifest.identity.run != mine.run:
            theirs |= {manifest_name(number), *(file.name for file in manifest.files.values())}
    return theirs


def own_manifest(folder: Folder, number: int, mine: Identity, required: Collection[Part]) -> Manifest:
    """Raises Refused where a checkpoint is not this training's, or lacks a required file."""
    manifest = manifest_of(folder, number)
    for field, own in mine:
        if (other := getattr(manifest.identity, field)) != own:
            raise Refused(f"it is of another {field} ({other[:12]}, not {own[:12]})")
    if missing := set(required) - manifest.files.keys():
        raise Refused(f"its manifest names no {', '.join(sorted(missing))}")
    return manifest


def _read(folder: Folder, number: int, mine: Identity, training_after: Callable[[int], Training]) -> Resumption:
    manifest = own_manifest(folder, number, mine, REQUIRED)
    record = _record(folder, manifest.files[Part.STATE])
    training = training_after(len(record.journal.ended))
    parts = _tensors(folder, manifest, training)
    at, best, good = record.position, _snapshot(parts, Part.BEST, record.best_epoch), _snapshot(parts, Part.GOOD, record.good_epoch)
    captured = Captured(at, Snapshot(at.epoch - 1, parts[Part.MODEL]), parts[Part.MOVING], best)
    found = next(problems(captured, training), None)
    if good is not None:
        found = found or next(unlike(good.weights, tensors_of(training.model), "good"), None)
    if found is not None:
        raise Refused(found)
    return Resumption(number, manifest, captured, good, record.journal)


def _record(folder: Folder, file: File) -> Record:
    try:
        record = Record.model_validate_json(verified(folder, file, STATE_BYTES))
    except ValidationError as error:
        raise Refused(describe(error, file.name)[:SAID]) from None
    if (record.position.epoch > 1) != (record.journal.kept is not None and record.journal.last is not None):
        raise Refused(f"{file.name}: the results of epoch {record.position.epoch - 1} are missing")
    return record


def _tensors(folder: Folder, manifest: Manifest, training: Training) -> dict[Part, dict[str, Tensor]]:
    model = training.model
    own = {**tensors_of(model), **dict(model.named_buffers())}
    most = COPIES * sum(tensor.nbytes for tensor in own.values()) + HEADER_BYTES
    parsed: dict[Part, dict[str, Tensor]] = {}
    for part, file in manifest.files.items():
        if part is Part.STATE:
            continue
        parsed[part] = tensors_in(folder, file, most)
    return parsed


def tensors_in(folder: Folder, file: File, most: int) -> dict[str, Tensor]:
    """By name. Raises Refused when the file is not what its manifest says, larger than `most` bytes or no safetensors file."""
    content = verified(folder, file, most)
    try:
        return dict(load(content))
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise Refused(f"{file.name} is no safetensors file ({str(error)[:160]})") from None


def _snapshot(parts: Mapping[Part, Mapping[str, Tensor]], part: Part, epoch: int | None) -> Snapshot | None:
    if (part in parts) != (epoch is not None):
        raise Refused(f"{part}: the manifest and the state disagree whether there is one")
    return None if epoch is None else Snapshot(epoch, parts[part])


def verified(folder: Folder, file: File, most: int) -> bytes:
    """The content of a checkpoint's file. Raises Refused when it is not what its manifest says, or larger than `most` bytes."""
    size = folder.size(file.name)
    if size != file.size:
        raise Refused(f"{file.name} has {size} bytes, not {file.size}")
    content = _bounded(folder, file.name, most)
    if hashlib.sha256(content).hexdigest() != file.sha256:
        raise Refused(f"{file.name} is not what its manifest says: SHA-256 differs")
    return content


def _bounded(folder: Folder, name: str, most: int) -> bytes:
    if (size := folder.size(name)) > most:
        raise Refused(f"{name} has {size} bytes, more than the {most} that it can have")
    return folder.read(name)
