"""A work queue in the manner of client-go: a key is worked on by one worker at a time, and what comes in meanwhile is
not lost, only merged."""

import asyncio
import random
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
FIRST_BACKOFF = 0.5
MAX_BACKOFF = 300.0


class WorkQueue(Generic[K]):
    """Keys waiting for a worker, now or later."""

    def __init__(self) -> None:
        self._ready: asyncio.Queue[K] = asyncio.Queue()
        self._waiting: set[K] = set()
        self._working: set[K] = set()
        self._again: set[K] = set()
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._failures: dict[K, int] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, key: K) -> None:
        """Soon."""
        if key in self._working:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting.add(key)
            self._ready.put_nowait(key)

    def add_after(self, key: K, seconds: float) -> None:
        """After `seconds`, or earlier if an earlier time was asked for."""
        loop = asyncio.get_running_loop()
        when, timer = loop.time() + seconds, self._timers.get(key)
        if timer is not None and timer.when() <= when:
            return
        if timer is not None:
            timer.cancel()
        self._timers[key] = loop.call_at(when, self._due, key)

    def _due(self, key: K) -> None:
        self._timers.pop(key, None)
        self.add(key)

    def fail(self, key: K, at_least: float = 0.0) -> float:
        """Asks for `key` again after a pause that doubles with each failure in a row; gives the pause, in seconds."""
        count = self._failures[key] = self._failures.get(key, 0) + 1
        pause: float = min(MAX_BACKOFF, FIRST_BACKOFF * 2 ** min(count - 1, 20)) * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
        pause = max(pause, at_least)
        self.add_after(key, pause)
        return pause

    def succeed(self, key: K) -> None:
        self._failures.pop(key, None)

    async def get(self) -> K:
        """The next key; call `done` with it."""
        key = await self._ready.get()
        self._waiting.discard(key)
        self._working.add(key)
        return key

    def done(self, key: K) -> None:
        self._working.discard(key)
        if key in self._again:
            self._again.discard(key)
            self.add(key)

    def close(self) -> None:
        """Cancels what was asked for later."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
