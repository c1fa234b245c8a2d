"""Writes checkpoints from a thread of its own, one at a time: the loop only waits for the copy in memory."""

import hashlib
import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from torch import Tensor

from dropout_api.training import Checkpoint
from dropout_trainer.train.checkpoints.folder import UNFINISHED, Folder
from dropout_trainer.train.checkpoints.packing import hashed, packed, size_of
from dropout_trainer.train.checkpoints.read import Resumption, foreign
from dropout_trainer.train.checkpoints.schema import File, Identity, Journal, Manifest, Part, Record, file_name, manifest_name, number_of
from dropout_trainer.train.points import Points
from dropout_trainer.train.state import Captured
from dropout_trainer.train.stopping import Snapshot

PATIENCE_SECONDS = 300.0
"""How long one that is being written is waited for before the next, and at the end: a store that hangs must not hold a training."""
C = TypeVar("C")
"""What goes into a checkpoint, copied."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Content:
    """All that goes into a checkpoint, copied. `unsent` is asked first, by the writer: what it returns goes into the journal."""

    captured: Captured
    good: Snapshot | None
    journal: Journal
    unsent: Callable[[], list[Points]] = list


@dataclass
class Epochs:
    """Files that hold the weights of an epoch's end in the training in progress; a checkpoint refers to one instead of writing it again."""

    training: int = 0
    files: dict[int, File] = field(default_factory=dict)

    @staticmethod
    def of(resumption: Resumption) -> "Epochs":
        captured, files = resumption.captured, resumption.manifest.files
        found = {snapshot.epoch: files[part] for part, snapshot in ((Part.BEST, captured.best), (Part.GOOD, resumption.good)) if snapshot}
        if captured.position.batch == 0:
            found[captured.model.epoch] = files[Part.MODEL]
        return Epochs(len(resumption.journal.ended), found)


class Writer(ABC, Generic[C]):
    """Saves as `rule` says into `folder`, after what is there. Keeps the latest and what they refer to; the rest of this run goes.

    `resumed` are the checkpoints that are known to be good, by number.
    """

    def __init__(self, folder: Folder, mine: Identity, rule: Checkpoint, resumed: Mapping[int, Manifest]) -> None:
        self._folder, self._mine, self._rule = folder, mine, rule
        for name in folder.names():
            if name.endswith(UNFINISHED):  # of a process that was killed
                folder.remove(name)
        self._theirs = foreign(folder, mine)
        self._number = max((number for number in map(number_of, folder.names()) if number is not None), default=0)
        self._kept = dict(resumed)
        self._writing: threading.Thread | None = None
        self._owed = False

    @property
    def saved(self) -> int | None:
        """Number of the newest checkpoint that a later attempt can go on from."""
        return max(self._kept, default=None)

    def due(self, ended: int | None, steps: int) -> bool:
        """Whether to save now, after epoch `ended`, or within one (None) after so many steps of all. What is due while another is being
        written is owed until that is done."""
        by_epoch = ended is not None and ended % self._rule.every_epochs == 0
        by_step = self._rule.every_steps is not None and steps > 0 and steps % self._rule.every_steps == 0
        self._owed = self._owed or by_epoch or (by_step and ended is None)
        return self._owed and not self.writing

    @property
    def writing(self) -> bool:
        return self._writing is not None and self._writing.is_alive()

    def save(self, content: C) -> None:
        """Begins to write `content`, once what is being written is there. A failure is logged: the training goes on."""
        self.wait()
        self._owed = False
        if self.writing:
            log.warning("checkpoint %d has been written for %.0f s; no other is begun", self._number, PATIENCE_SECONDS)
            return
        self._number += 1
        self._writing = threading.Thread(target=self._try, args=(self._number, content), name="checkpoints", daemon=True)
        self._writing.start()

    def wait(self) -> None:
        """Until nothing is being written, PATIENCE_SECONDS at most."""
        if self._writing is not None:
            self._writing.join(PATIENCE_SECONDS)

    def _try(self, number: int, content: C) -> None:
        try:
            manifest = Manifest(identity=self._mine, files=self._write(number, content))
            self._folder.write(manifest_name(number), [manifest.to_json().encode()])
            self._kept[number] = manifest
            self._remove_old()
        except Exception as error:  # each scheme's package has exceptions of its own
            log.warning("checkpoint %d could not be written (%s: %s); training goes on", number, type(error).__name__, str(error)[:200])

    @abstractmethod
    def _write(self, number: int, content: C) -> dict[Part, File]:
        """Writes the checkpoint's files with `_put`; those of earlier ones may be among what it returns."""

    def _forget(self, used: set[str]) -> None:
        """Files that are not `used` are about to be removed."""

    def _put(self, number: int, part: Part, content: bytes | Mapping[str, Tensor]) -> File:
        name, pieces = file_name(number, part), [content] if isinstance(content, bytes) else packed(content)
        digest = hashlib.sha256()
        self._folder.write(name, hashed(pieces, digest))
        return File(name=name, sha256=digest.hexdigest(), size=size_of(pieces))

    def _remove_old(self) -> None:
        """The manifest first: what has one is whole."""
        for number in sorted(self._kept)[: -self._rule.keep]:
            del self._kept[number]
        used = {file.name for manifest in self._kept.values() for file in manifest.files.values()} | {manifest_name(n) for n in self._kept}
        self._forget(used)
        ours = [name for name in self._folder.names() if number_of(name) is not None and name not in self._theirs]
        for name in sorted(set(ours) - used, key=lambda name: (not name.endswith("manifest.json"), name)):
            self._folder.remove(name)


class Saver(Writer[Content]):
    """Of the trainer's own loop."""

    def __init__(self, folder: Folder, mine: Identity, rule: Checkpoint, resumed: Resumption | None = None) -> None:
        super().__init__(folder, mine, rule, {resumed.number: resumed.manifest} if resumed else {})
        self._epochs = Epochs.of(resumed) if resumed else Epochs()

    def _write(self, number: int, content: Content) -> dict[Part, File]:
        captured, epochs = content.captured, self._epochs_of(content)
        journal = content.journal.model_copy(update={"unsent": content.unsent()})
        files = {Part.MOVING: self._put(number, Part.MOVING, captured.moving)}
        whole = captured.position.batch == 0
        for part, snapshot in ((Part.MODEL, captured.model), (Part.BEST, captured.best), (Part.GOOD, content.good)):
            if snapshot is None:
                continue
            reusable = part is not Part.MODEL or whole  # within an epoch the model's weights are of no epoch's end
            file = epochs.get(snapshot.epoch) if reusable else None
            files[part] = file or self._put(number, part, snapshot.weights)
            if reusable:
                epochs[snapshot.epoch] = files[part]
        record = Record(
            position=captured.position, best_epoch=captured.best.epoch if captured.best else None,
            good_epoch=content.good.epoch if content.good else None, journal=journal,
        )
        files[Part.STATE] = self._put(number, Part.STATE, record.to_json().encode())
        return files

    def _epochs_of(self, content: Content) -> dict[int, File]:
        training = len(content.journal.ended)
        if self._epochs.training != training:
            self._epochs = Epochs(training)
        return self._epochs.files

    def _forget(self, used: set[str]) -> None:
        self._epochs.files = {epoch: file for epoch, file in self._epochs.files.items() if file.name in used}


class Witness:
    """Stands for a Saver on ranks above 0, which neither wish for a checkpoint nor write one."""

    saved = None

    def due(self, ended: int | None, steps: int) -> bool:
        return False

    def wait(self) -> None: ...

