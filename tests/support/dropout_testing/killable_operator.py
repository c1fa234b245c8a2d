"""`python -m dropout_testing.killable_operator`: the operator, killed with SIGKILL at chosen actions and started again each time.

A job chooses by its name: `createjob-before-2` kills before its second CreateJob. Each point kills once. The operator is forked
from a process that has imported everything, so that a restart takes less than a second.
"""

import asyncio
import os
import signal
import sys
from collections import Counter
from pathlib import Path

import mlflow.tracking  # noqa: F401 - imported here so that no child has to

from dropout_operator.__main__ import operate
from dropout_operator.actions import Action
from dropout_operator.apply import Executor
from dropout_operator.settings import Settings
from dropout_operator.world import World

FIRED = Path(os.environ.get("KILL_FOLDER", "."))
perform = Executor.perform
at_their_point: set[str] = set()


def point_of(name: str) -> tuple[str, str, int]:
    """`createjob-before-2` gives CreateJob's lower-case name, the side and the number; what follows is the test's own."""
    kind, side, number, *_ = name.split("-")
    return kind, side, int(number)


async def perform_or_die(self: Executor, action: Action, world: World) -> World:
    """Counts the job's actions over all lives of the operator, in a file: one line for each that was begun."""
    name = world.job.ref.name
    kind, side, number = point_of(name)
    begun = FIRED / f"{name}.begun"
    with begun.open("a") as log:
        log.write(f"{type(action).__name__}\n")
    count = Counter(begun.read_text().lower().split())[type(action).__name__.lower()]
    mine = type(action).__name__.lower() == kind and count >= number and not (FIRED / name).exists()
    if not mine:
        return await perform(self, action, world)
    if side == "after":
        at_their_point.add(name)
        try:
            await perform(self, action, world)
        except BaseException:
            at_their_point.discard(name)
            raise
    await _die(name)
    raise AssertionError("unreachable")


async def _die(name: str) -> None:
    """Dies once no other job is in the middle of the action that it is to die after."""
    (FIRED / name).touch()
    at_their_point.discard(name)
    while at_their_point:  # noqa: ASYNC110 - a set, and it is about to be over anyway
        await asyncio.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> int:
    """Starts the operator until it ends otherwise than by SIGKILL."""
    Executor.perform = perform_or_die  # type: ignore[method-assign]
    settings = Settings.from_environment()
    while True:
        child = os.fork()
        if child == 0:
            asyncio.run(operate(settings))
            os._exit(0)
        signal.signal(signal.SIGTERM, lambda *_, child=child: os.kill(child, signal.SIGTERM))
        _, status = os.waitpid(child, 0)
        if not (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL):
            return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main())
