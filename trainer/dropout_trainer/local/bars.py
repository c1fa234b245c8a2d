"""A training at a terminal: a bar for its epochs with the time that is left, one for the steps of the epoch, and the last losses."""

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from dropout_api.names import Metric
from dropout_api.report import ProgressSample
from dropout_trainer.train.loop import EpochResult

DRAWN, TOLD = 5, 0.2
"""How often the bars are drawn in a second, and the least seconds between two updates: a step must not wait for a terminal."""
WIDTH = 40
"""Of a bar. A line that fills the terminal would be broken by its echo of Ctrl-C."""
LOSSES = {Metric.TRAIN_LOSS: "train {:.4f}", Metric.VAL_LOSS: "val {:.4f}", Metric.VAL_GAP: "gap {:+.4f}"}


@dataclass
class Pace:
    """How long the rest will take, by how long it has taken in this process."""

    clock: Callable[[], float]
    began: float | None = None
    done: float = 0.0
    """Epochs, a part of one as its share."""
    skipped: float = 0.0
    """Epochs that took no time here: of an earlier process, or of a trial that ended early."""

    def begin(self, done: float) -> None:
        """A training begins after so many epochs, trained or skipped."""
        if self.began is None:
            self.began = self.clock()
        self.skipped, self.done = self.skipped + done - self.done, done

    def left(self, done: float, epochs: float) -> float | None:
        """Seconds; None before there is a step to judge by."""
        self.done = done
        if self.began is None or done <= self.skipped:
            return None
        return (self.clock() - self.began) * max(0.0, epochs - done) / (done - self.skipped)


class Bars:
    """A `Watcher` that draws on `console`, below the lines of the log."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._pace, self._told = clock, Pace(clock), -math.inf
        self._progress = _Progress(
            TextColumn("{task.description}"), BarColumn(WIDTH), TextColumn("{task.completed:.0f}/{task.total:.0f}  {task.fields[left]}"),
            console=console, refresh_per_second=DRAWN,
        )
        self._epochs, self._steps = (self._progress.add_task(name, total=1, visible=False, left="") for name in ("epoch", "step"))
        self._before, self._per_epoch, self._of = 0, 1, 1

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Draws within the block; lines of the log, and what is printed, go above the bars."""
        with _logged_above(self._progress.console), self._progress:
            yield

    def begin(self, at: ProgressSample, before: int, steps: int) -> None:
        self._before, self._per_epoch, self._of = before, steps, at.epochs
        done = max(before, at.epoch)
        self._pace.begin(done)
        self._progress.losses = losses(at.metrics)
        self._progress.update(self._epochs, total=at.epochs, completed=done, visible=True)
        self._progress.update(self._steps, total=steps, completed=0, visible=True)

    def step(self, steps: int) -> None:
        now = self._clock()
        if now - self._told < TOLD:
            return
        self._told = now
        self._progress.update(self._steps, completed=(steps - 1) % self._per_epoch + 1)
        self._progress.update(self._epochs, left=self._left(self._before + steps / self._per_epoch))

    def epoch(self, result: EpochResult, at: ProgressSample) -> None:
        self._progress.losses = losses(at.metrics)
        self._progress.update(self._steps, completed=self._per_epoch)
        self._progress.update(self._epochs, completed=at.epoch, left=self._left(at.epoch))

    def _left(self, done: float) -> str:
        left = self._pace.left(done, self._of)
        return f"{duration(left)} left" if left else ""


class _Progress(Progress):
    """With a line below the bars."""

    losses = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        if self.losses:
            yield Text(self.losses, overflow="ellipsis", no_wrap=True)


def losses(metrics: Mapping[str, float]) -> str:
    """Of an epoch, in eval mode; then what else was measured on the validation set. Empty before the first."""
    others = [name for name in metrics if name.startswith("val_") and name not in set(LOSSES)]
    told = [text.format(metrics[name]) for name, text in LOSSES.items() if name in metrics]
    return "  ".join([*told, *(f"{name.removeprefix('val_')} {metrics[name]:.4g}" for name in others)])


def duration(seconds: float) -> str:
    """As 1:02:03, or 2:03 below an hour."""
    minutes, rest = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class _Above(logging.Handler):
    """Hands lines to the console that draws, which knows where the bars are."""

    def __init__(self, console: Console, formatter: logging.Formatter | None) -> None:
        super().__init__()
        self._console = console
        self.setFormatter(formatter)

    def emit(self, record: logging.LogRecord) -> None:
        self._console.print(Text(self.format(record)), soft_wrap=True)


@contextmanager
def _logged_above(console: Console) -> Iterator[None]:
    root = logging.getLogger()
    before = root.handlers[:]
    root.handlers[:] = [_Above(console, before[0].formatter if before else None)]
    try:
        yield
    finally:
        root.handlers[:] = before
