"""Writes on disk until MLflow has them: a log of segments in a folder, appended at one end, read and deleted at the other.

A line is a write. A process appends to segments of its own, so that the torn last line of one that was killed stays
alone and is skipped. What MLflow has is noted after each request; a note that is lost or old costs a repetition, which
MLflow keeps once. Appending leaves the data to the kernel, which a killed process or container does not take with it;
`sync` puts it on the device, for who relies on it after the loss of a node.
"""

import errno
import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from io import BufferedReader, FileIO
from pathlib import Path
from typing import NamedTuple

from dropout_trainer.train.tracking.writes import Resume, Write, from_line, to_line

if sys.platform != "win32":
    import fcntl

DISK_BYTES = 64 * 2**20
"""A million writes of one metric: at 100 a second nearly three hours."""
SEGMENT_BYTES = 2**20
LOCK, SENT = "lock", "sent"
TAKEN = (errno.EWOULDBLOCK, errno.EACCES)
log = logging.getLogger(__name__)


class Position(NamedTuple):
    """A line's end, and whether the log up to there has a Resume."""

    segment: int
    offset: int
    resumed: bool


START = Position(0, 0, False)


class Spool:
    """The writes of one run in `folder`, which is made. `limit` and `segment` are in bytes.

    Raises OSError where the folder cannot be written, or another process uses it.
    """

    def __init__(self, folder: Path, limit: int = DISK_BYTES, segment: int = SEGMENT_BYTES) -> None:
        self._folder, self._limit, self._segment = folder, limit, segment
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = _locked(folder / LOCK)
        self._sent = (folder / SENT).open("r+b" if (folder / SENT).exists() else "w+b", buffering=0)
        self._acknowledged = _noted(self._sent)
        self._writer: FileIO | None = None
        self._unsynced = False
        self._sizes = {int(path.stem): path.stat().st_size for path in sorted(folder.glob("*.jsonl")) if path.stem.isdigit()}
        self._forget(self._acknowledged.segment)
        self._cursor = _Cursor(folder, self._sizes, self._acknowledged)
        self._waiting = sum(self._lines(number) for number in self._sizes)

    def __len__(self) -> int:
        """Writes that MLflow does not have, as far as is known."""
        return self._waiting

    @property
    def resumed(self) -> bool:
        """Whether MLflow has writes up to a Resume or more: what is left may be of steps that were trained again."""
        return self._acknowledged.resumed

    def append(self, writes: Sequence[Write]) -> None:
        """All of them or none. Raises OSError when they find no room."""
        data = b"".join(map(to_line, writes))
        if sum(self._sizes.values()) + len(data) > self._limit:
            raise OSError(errno.ENOSPC, f"it has its {self._limit >> 20} MiB")
        number, writer = self._writer_with_room()
        if writer.write(data) != len(data):
            try:
                writer.truncate(self._sizes[number])
            except OSError:
                self._close_writer()  # what is left ends this segment, and is skipped as torn
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._sizes[number] += len(data)
        self._waiting += len(writes)
        self._unsynced = True

    def sync(self) -> None:
        """Puts all that was appended on the device. Raises OSError."""
        if self._unsynced and self._writer is not None:
            os.fsync(self._writer.fileno())
            _sync_folder(self._folder)
            _sync_folder(self._folder.parent)
        self._unsynced = False

    def read(self, count: int) -> list[tuple[Write, Position]]:
        """The next writes, `count` at most, each with what to acknowledge after it. Raises OSError."""
        found: list[tuple[Write, Position]] = []
        for write in self._cursor:
            if write is None:
                self._waiting -= 1
                continue
            found.append((write, self._cursor.position))
            if len(found) >= count:
                break
        return found

    def unsent(self) -> Iterator[Write]:
        """All that is not acknowledged, those that were read among it. Raises OSError."""
        cursor = _Cursor(self._folder, self._sizes, self._acknowledged, quiet=True)
        try:
            yield from (write for write in cursor if write is not None)
        finally:
            cursor.close()

    def acknowledge(self, upto: Position, count: int) -> None:
        """MLflow has `count` more writes, up to this one. Segments that it has wholly are deleted."""
        if self._sent.closed:
            return
        self._waiting -= count
        self._acknowledged = upto
        with suppress(OSError):  # it only saves repetitions
            self._sent.seek(0)
            self._sent.write(b"%020d %020d %d\n" % upto)
            if min(self._sizes, default=upto.segment) < upto.segment:
                os.fsync(self._sent.fileno())  # an older note would not know of a Resume in a segment that is gone
        self._forget(upto.segment)

    def close(self) -> None:
        """Gives the folder to the next process; deletes it when nothing in it waits."""
        self._close_writer()
        self._cursor.close()
        self._sent.close()
        if not self._waiting:
            with suppress(OSError):
                for path in (*(_path(self._folder, number) for number in self._sizes), self._folder / SENT, self._folder / LOCK):
                    path.unlink(missing_ok=True)
                self._folder.rmdir()
        self._lock.close()

    def _lines(self, number: int) -> int:
        with _path(self._folder, number).open("rb") as file:
            file.seek(self._acknowledged.offset if number == self._acknowledged.segment else 0)
            return sum(line.endswith(b"\n") for line in file)

    def _writer_with_room(self) -> tuple[int, FileIO]:
        last = max(self._sizes, default=self._acknowledged.segment)
        if self._writer is None or self._sizes[last] >= self._segment:
            self.sync()
            self._close_writer()
            last += 1
            self._writer = _path(self._folder, last).open("ab", buffering=0)
            self._sizes[last] = 0
        return last, self._writer

    def _close_writer(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer = None

    def _forget(self, before: int) -> None:
        for number in [number for number in self._sizes if number < before]:
            with suppress(OSError):
                _path(self._folder, number).unlink(missing_ok=True)
            del self._sizes[number]


class _Cursor:
    """Reads the log on, as far as it is written; None stands for a line that no process wrote. Raises OSError."""

    def __init__(self, folder: Path, sizes: Mapping[int, int], position: Position, quiet: bool = False) -> None:
        self._folder, self._sizes, self.position, self._quiet = folder, sizes, position, quiet
        self._file: BufferedReader | None = None

    def __iter__(self) -> Iterator[Write | None]:
        while (line := self._line()) is not None:
            try:
                write = from_line(line)
            except ValueError as error:
                self._say("a record in %s is skipped: %s", self._folder, error)
                yield None
                continue
            if isinstance(write, Resume):
                self.position = self.position._replace(resumed=True)
            yield write

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = None

    def _line(self) -> bytes | None:
        """The next whole line. A segment's end without a line's end is torn: a line is written as a whole or never finished."""
        while True:
            segment, offset, resumed = self.position
            if self._file is None and segment in self._sizes:
                self._file = _path(self._folder, segment).open("rb")
                self._file.seek(offset)
            line = self._file.readline() if self._file else b""
            if line.endswith(b"\n"):
                self.position = Position(segment, offset + len(line), resumed)
                return line
            if line:
                self._say("a torn record at the end of %s is skipped", _path(self._folder, segment))
            following = min((number for number in self._sizes if number > segment), default=None)
            if following is None:
                return None
            self.close()
            self.position = Position(following, 0, resumed)

    def _say(self, text: str, *args: object) -> None:
        if not self._quiet:
            log.warning(text, *args)


def _path(folder: Path, number: int) -> Path:
    return folder / f"{number:08d}.jsonl"


def _locked(path: Path) -> FileIO:
    """Held until it is closed or the process ends, however it ends. Some network volumes have no locks: there the operator's word
    stands, which begins an attempt when no pod of the one before is left."""
    file = path.open("wb", buffering=0)
    if sys.platform != "win32":
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in TAKEN:
                file.close()
                raise
    return file


def _sync_folder(path: Path) -> None:
    """Or the name of a file in it may be lost with the machine."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _noted(file: FileIO) -> Position:
    """Of a note that cannot be read nothing is known; then a Resume may have been."""
    text = file.read()
    try:
        segment, offset, resumed = map(int, text.split())
        return Position(segment, offset, bool(resumed))
    except ValueError:
        return START._replace(resumed=bool(text))
