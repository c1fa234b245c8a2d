"""Writes between training and MLflow: in order, on disk where there is a spool with room, in memory otherwise."""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

from dropout_trainer.train.points import Points
from dropout_trainer.train.tracking.spool import Position, Spool
from dropout_trainer.train.tracking.writes import POINTS_PER_BATCH, Write, request_of

CARRIED = 100_000
"""Values that a checkpoint may carry, about ten megabytes of it: a quarter of an hour at 100 a second."""
UNSPOOLED = "MLflow's writes cannot be spooled to disk (%s); they wait in memory as far as there is room"
UNSECURED = "what waits for MLflow on disk cannot be put on the device (%s)"
TOO_MANY = "more than %d values wait for MLflow; checkpoints carry the oldest of them"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """What MLflow is sent at once; `upto` is where that ends in the spool, None for writes that lie in memory alone."""

    writes: Sequence[Write]
    upto: Position | None = None


class Backlog:
    """Not safe for threads. Its spool is opened by `open`, and may fail; `lasting` says whether the next process of the run finds it."""

    def __init__(self, spool: Callable[[], Spool] | None, lasting: bool = True) -> None:
        self._make_spool, self._lasting = spool, lasting
        self._spool: Spool | None = None
        self._window: deque[tuple[Write, Position]] = deque()
        """The next of the spool's."""
        self.kept: deque[Write] = deque()
        """Writes that lie in memory alone. They follow all of the spool's, so while there are any it takes no more."""
        self._told = set[str]()

    def open(self) -> bool:
        """Whether what an earlier process has left may be of steps that were trained again."""
        if self._make_spool is not None:
            try:
                self._spool = self._make_spool()
            except OSError as error:
                self._tell(UNSPOOLED, error)
            if len(self):
                log.info("an earlier process of this run has left %d writes for MLflow", len(self))
        return self._spool is not None and self._spool.resumed

    def __len__(self) -> int:
        return (len(self._spool) if self._spool is not None else 0) + len(self.kept)

    def append(self, writes: Sequence[Write]) -> None:
        if self._spool is not None and not self.kept:
            try:
                self._spool.append(writes)
            except OSError as error:
                self._tell(UNSPOOLED, error)
            else:
                return
        self.kept.extend(writes)

    def request(self) -> Request:
        """The next to be sent; the same again until it is `done`, but for points that have come since. Empty when nothing waits."""
        if self._spool is not None:
            try:
                self._window.extend(self._spool.read(POINTS_PER_BATCH - len(self._window)))
            except OSError as error:
                log.warning("what waits for MLflow on disk cannot be read: %s", error)
        if self._window:
            writes = request_of(write for write, _ in self._window)
            return Request(writes, self._window[len(writes) - 1][1])
        return Request(request_of(self.kept))

    def done(self, request: Request) -> None:
        source = self.kept if request.upto is None else self._window
        for _ in request.writes:
            source.popleft()
        if self._spool is not None and request.upto is not None:
            self._spool.acknowledge(request.upto, len(request.writes))

    def secure(self) -> list[Points]:
        """Puts what lies in a lasting spool on the device; returns the points that the next process of the run will not find there."""
        try:
            if self._spool is not None and self._lasting:
                self._spool.sync()
                return self._carried(self.kept)
            return self._carried(chain(self._spool.unsent() if self._spool is not None else (), self.kept))
        except OSError as error:
            self._tell(UNSECURED, error)
            return self._carried(self.kept)

    def close(self) -> None:
        """Leaves to the next process what lies in the spool."""
        if self._spool is not None:
            self._spool.close()

    def _carried(self, writes: Iterable[Write]) -> list[Points]:
        """The oldest come first: after a gap the later ones would pass for all that the run has."""
        found, values = list[Points](), 0
        for write in writes:
            if not isinstance(write, Points):
                continue
            values += len(write.values)
            if values > CARRIED:
                self._tell(TOO_MANY, CARRIED)
                break
            found.append(write)
        return found

    def _tell(self, text: str, *args: object) -> None:
        """Once, whatever the arguments."""
        if text not in self._told:
            log.warning(text, *args)
        self._told.add(text)
