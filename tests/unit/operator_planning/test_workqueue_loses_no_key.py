"""The work queue's promises, on a clock that the test turns."""

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest

from dropout_operator import workqueue
from dropout_operator.workqueue import WorkQueue


class TurnedClock(asyncio.SelectorEventLoop):
    """A loop whose time passes only where everyone waits for it."""

    offset = 0.0

    def time(self) -> float:
        return self.offset

    def _run_once(self) -> None:
        waiting = [timer.when() for timer in self._scheduled if not timer.cancelled()]  # type: ignore[attr-defined]
        if not self._ready and waiting:  # type: ignore[attr-defined]
            self.offset = max(self.offset, min(waiting))
        super()._run_once()  # type: ignore[misc]


def on_turned_clock(test: Callable[[WorkQueue[str]], Awaitable[None]]) -> None:
    async def main() -> None:
        await test(WorkQueue())

    with asyncio.Runner(loop_factory=TurnedClock) as runner:
        runner.run(main())


def now() -> float:
    return asyncio.get_running_loop().time()


def test_a_key_is_never_worked_on_twice_at_once() -> None:
    async def body(queue: WorkQueue[str]) -> None:
        busy: set[str] = set()
        looks: list[str] = []

        async def work() -> None:
            while True:
                key = await queue.get()
                assert key not in busy
                busy.add(key)
                await asyncio.sleep(random.random())
                busy.discard(key)
                looks.append(key)
                queue.done(key)

        workers = [asyncio.create_task(work()) for _ in range(4)]
        for _ in range(200):
            queue.add(random.choice("abc"))
            await asyncio.sleep(random.random() / 10)
        await asyncio.sleep(100)
        assert set(looks) == set("abc")
        assert not any(worker.done() for worker in workers)
        for worker in workers:
            worker.cancel()

    on_turned_clock(body)


def test_what_comes_in_meanwhile_is_merged_and_not_lost() -> None:
    async def body(queue: WorkQueue[str]) -> None:
        queue.add("a")
        assert await queue.get() == "a"
        for _ in range(5):
            queue.add("a")
        assert len(queue) == 0
        queue.done("a")
        assert len(queue) == 1
        assert await queue.get() == "a"
        queue.done("a")
        assert len(queue) == 0

    on_turned_clock(body)


def test_a_key_that_waits_waits_once() -> None:
    async def body(queue: WorkQueue[str]) -> None:
        for _ in range(3):
            queue.add("a")
        assert len(queue) == 1

    on_turned_clock(body)


@pytest.mark.parametrize(("first", "second"), [(10.0, 3.0), (3.0, 10.0)])
def test_the_earlier_of_two_times_counts(first: float, second: float) -> None:
    async def body(queue: WorkQueue[str]) -> None:
        queue.add_after("a", first)
        queue.add_after("a", second)
        await queue.get()
        assert now() == pytest.approx(3.0)
        queue.done("a")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(50):
                await queue.get()

    on_turned_clock(body)


def test_pauses_double_with_each_failure_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workqueue.random, "uniform", lambda low, high: high)

    async def body(queue: WorkQueue[str]) -> None:
        pauses = [queue.fail("a") for _ in range(40)]
        assert pauses[:4] == [0.5, 1.0, 2.0, 4.0]
        assert pauses[-1] == workqueue.MAX_BACKOFF
        queue.succeed("a")
        assert queue.fail("a") == 0.5

    on_turned_clock(body)


def test_the_servers_own_pause_is_kept_to() -> None:
    async def body(queue: WorkQueue[str]) -> None:
        assert queue.fail("a", at_least=42.0) == 42.0
        await queue.get()
        assert now() == pytest.approx(42.0)

    on_turned_clock(body)


def test_a_closed_queue_brings_nothing_more() -> None:
    async def body(queue: WorkQueue[str]) -> None:
        queue.add_after("a", 1.0)
        queue.close()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(50):
                await queue.get()

    on_turned_clock(body)
