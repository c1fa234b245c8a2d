"""From the training thread to MLflow: a queue that never makes anybody wait, and the two threads behind it."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from dropout_trainer.train.points import Points
from dropout_trainer.train.tracking.backlog import Backlog, Request
from dropout_trainer.train.tracking.spool import DISK_BYTES
from dropout_trainer.train.tracking.writes import (
    NOTHING,
    POINTS_PER_BATCH,
    Client,
    Resume,
    Write,
    brief,
    is_refusal,
    recorded_steps,
    send,
)

LAST_WORDS_SECONDS = 2.0
"""How long the end waits for the last writes to be on disk."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Policy:
    """How long what waits for what, in seconds, and how much may wait."""

    gather: float = 0.2
    """Between two looks at what was handed over, which then goes to disk; a process that is killed loses no more than this."""
    between: float = 2.0
    """Between two requests with points, unless a whole request's worth waits: each holds Python's lock for milliseconds."""
    pauses: tuple[float, float] = (0.5, 10.0)
    """The first and the longest between two tries while MLflow is away."""
    sample: float = 10.0
    """Between two looks at the machine."""
    memory: int = 20_000
    """Writes, a step each, that may lie in memory alone; beside them, those of the next request do."""
    disk: int = DISK_BYTES
    """Bytes that may lie in the spool."""

    def longer(self, pause: float) -> float:
        return min(2 * pause, self.pauses[1])


class Barrier:
    """A place in the order of writes. Once it is passed, all before it is where it stays when the process ends, but for `unsaved`."""

    def __init__(self) -> None:
        self._passed = threading.Event()
        self.unsaved: list[Points] = []

    def let_pass(self, unsaved: list[Points]) -> None:
        self.unsaved = unsaved
        self._passed.set()

    def wait(self, seconds: float) -> bool:
        """Whether it is passed within `seconds`."""
        return self._passed.wait(seconds)


class Pipeline:
    """Sends to a run, in order. `sample` is called every `policy.sample` seconds, None when there is nothing to sample."""

    def __init__(
        self, run_id: str, connected: Callable[[], Client], backlog: Backlog, policy: Policy, sample: Callable[[], Write] | None,
    ) -> None:
        self._run_id, self._connected, self._backlog, self._policy, self._sample = run_id, connected, backlog, policy, sample
        self._inbox: deque[Write | Barrier] = deque()
        self._first: Sequence[Write] = ()
        self._recorded: Mapping[str, int] | None = NOTHING
        """The last step of each metric at the last Resume; None where one was sent by an earlier process."""
        self._opened = False
        self._changed = threading.Condition()
        """Guards the backlog. Training never takes it, because whoever holds it may be waiting for a disk."""
        self._look, self._hurry, self._stop = threading.Event(), threading.Event(), threading.Event()
        self._spooler = threading.Thread(target=self._spool_all, name="spooler", daemon=True)
        self._sender = threading.Thread(target=self._send_all, name="tracking", daemon=True)
        self.healthy = True
        self.lost = 0

    def start(self, first: Sequence[Write] = ()) -> None:
        """`first` is what follows the spool's and precedes the inbox's; no limit holds for it."""
        self._first = first
        self._spooler.start()
        self._sender.start()

    def put(self, write: Write) -> None:
        """Costs microseconds: it takes no lock, and wakes nobody, since the spooler looks by itself."""
        if len(self._inbox) + len(self._backlog.kept) >= self._policy.memory:
            if not self.lost:
                log.warning("what waits for MLflow finds no more room; from here on writes of this run are lost")
            self.lost += 1
            return
        self._inbox.append(write)

    def barrier(self) -> Barrier:
        """After what was put until now. It is passed soon, whether MLflow is there or not."""
        barrier = Barrier()
        self._inbox.append(barrier)
        self._look.set()
        return barrier

    def settle(self, seconds: float) -> bool:
        """Whether MLflow has everything within `seconds`."""
        deadline = time.monotonic() + seconds
        self._hurry.set()
        self._look.set()
        with self._locked(seconds) as locked:
            left = deadline - time.monotonic()
            settled = locked and self._changed.wait_for(lambda: self._opened and not self._left(), timeout=left)
        self._hurry.clear()
        return settled

    def drain(self, seconds: float) -> int:
        """Waits until MLflow has everything, `seconds` at most, and ends the threads; returns how many writes it does not have."""
        if self._sender.is_alive():
            self.settle(seconds)
        for event in (self._stop, self._look, self._hurry):
            event.set()
        if self._spooler.is_alive():
            self._spooler.join(LAST_WORDS_SECONDS)
        if self._spooler.is_alive():
            return self._left() + self.lost
        with self._locked(LAST_WORDS_SECONDS) as locked:
            if locked:
                self._changed.notify_all()
        if self._sender.is_alive() and not self._left():  # else it may be in a request, which is not waited for
            self._sender.join(LAST_WORDS_SECONDS)
        with self._locked(LAST_WORDS_SECONDS) as locked:
            if locked:
                self._backlog.close()
        return self._left() + self.lost

    @contextmanager
    def _locked(self, seconds: float) -> Iterator[bool]:
        """Whether the lock was free within `seconds`: whoever holds it may be waiting for a disk that hangs."""
        locked = self._changed.acquire(timeout=seconds)
        try:
            yield locked
        finally:
            if locked:
                self._changed.release()

    def _left(self) -> int:
        return len(self._inbox) + len(self._backlog)

    def _spool_all(self) -> None:
        with self._changed:
            if self._backlog.open():
                self._recorded = None
            if self._first:
                self._backlog.append(self._first)
            self._first, self._opened = (), True
            self._changed.notify_all()
        due = time.monotonic() + self._policy.sample
        while not self._stop.is_set():
            self._look.wait(self._policy.gather)
            self._look.clear()
            if self._sample and time.monotonic() >= due:
                due = time.monotonic() + self._policy.sample
                self._take_sample(self._sample)
            self._spool_inbox()
        self._spool_inbox()

    def _spool_inbox(self) -> None:
        if not self._inbox:
            return
        with self._changed:
            writes: list[Write] = []
            for _ in range(len(self._inbox)):
                item = self._inbox.popleft()
                if not isinstance(item, Barrier):
                    writes.append(item)
                    continue
                self._append(writes)
                writes = []
                item.let_pass(self._backlog.secure())
            self._append(writes)
            self._changed.notify_all()

    def _append(self, writes: Sequence[Write]) -> None:
        if writes:
            self._backlog.append(writes)

    def _take_sample(self, sample: Callable[[], Write]) -> None:
        try:
            self.put(sample())
        except Exception as error:  # of a GPU it may be anything, and the writes must go on
            log.warning("the machine can no longer be looked at: %s", brief(error))
            self._sample = None

    def _send_all(self) -> None:
        pause = self._policy.pauses[0]
        while True:
            with self._changed:
                self._changed.wait_for(lambda: len(self._backlog) or self._stop.is_set())
                if self._stop.is_set():
                    return
                request = self._backlog.request()
            if self._sent(request):
                pause = self._policy.pauses[0]
                self._done(request)
            else:
                self._stop.wait(pause)
                pause = self._policy.longer(pause)

    def _sent(self, request: Request) -> bool:
        """Whether there is nothing more to do for it: it is written, or MLflow will never take it."""
        try:
            if request.writes:
                self._send(request.writes)
        except Exception as error:
            if is_refusal(error):
                log.warning("MLflow refuses a record of this run: %s", brief(error))
                return True
            if self.healthy:
                log.warning("MLflow is away (%s); training goes on and its record waits", brief(error))
            self.healthy = False
            return False
        if not self.healthy:
            log.info("MLflow is back; %d writes have waited", self._left())
        self.healthy = True
        return bool(request.writes)

    def _send(self, writes: Sequence[Write]) -> None:
        if self._recorded is None or isinstance(writes[0], Resume):
            self._recorded = recorded_steps(self._connected(), self._run_id)
        send(self._connected(), self._run_id, writes, self._recorded)

    def _done(self, request: Request) -> None:
        with self._changed:
            self._backlog.done(request)
            self._changed.notify_all()
            few = len(self._backlog) < POINTS_PER_BATCH
        if few and isinstance(request.writes[0], Points):
            self._hurry.wait(self._policy.between)
