"""A training at a terminal: a bar for its epochs, one for the steps of the epoch, losses of the last epoch and the time that is left."""

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

from dropout_api.report import ProgressSample
from dropout_trainer.train.loop import EpochResult

REDRAWN, TOLD = 5, 0.2
"""How often the bars are drawn in a second, and the seconds between two updates: a step must not wait for a terminal."""
LOSSES = {"train_loss": "train", "val_loss": "val", "val_gap": "gap"}


@dataclass
class Pace:
    """How long the rest will take, by how long the epochs of this process have taken."""

    clock: Callable[[], float]
    began: float = math.nan
    first: float = math.nan
    """Epochs that were done when this process began."""

    def left(self, done: float, epochs: int) -> float | None:
        """Seconds; None before there is a step to judge by. `done` counts epochs, and a part of one as its share."""
        if math.isnan(self.began):
            self.began, self.first = self.clock(), done
        if done <= self.first:
            return None
        return (self.clock() - self.began) * max(0.0, epochs - done) / (done - self.first)


class Bars:
    """A `Watcher` that draws on `console`, between the lines of the log."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._pace, self._told = clock, Pace(clock), -math.inf
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(bar_width=None), TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            _Losses(), _Left(), console=console, refresh_per_second=REDRAWN, expand=True,
        )
        self._epochs = self._progress.add_task("epoch", total=None, visible=False)
        self._steps = self._progress.add_task("step", total=None, visible=False)
        self._before, self._per_epoch = 0, 1

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Draws within the block; lines of the log, and what is printed, go above the bars."""
        with self._progress, _logged_above(self._progress.console):
            yield

    def begin(self, at: ProgressSample, before: int, steps: int) -> None:
        self._before, self._per_epoch = before, steps
        self._progress.update(self._epochs, total=at.epochs, completed=at.epoch, metrics=at.metrics, visible=True)
        self._progress.update(self._steps, total=steps, completed=0, visible=True)
        self._pace.left(at.epoch, at.epochs)

    def step(self, steps: int) -> None:
        now = self._clock()
        if now - self._told < TOLD:
            return
        self._told = now
        done, total = self._before + steps / self._per_epoch, self._progress.tasks[self._epochs].total or 0
        self._progress.update(self._steps, completed=(steps - 1) % self._per_epoch + 1)
        self._progress.update(self._epochs, left=self._pace.left(done, int(total)))

    def epoch(self, result: EpochResult, at: ProgressSample) -> None:
        left = self._pace.left(at.epoch, at.epochs)
        self._progress.update(self._epochs, completed=at.epoch, metrics=at.metrics, left=left)


class _Losses(ProgressColumn):
    """Of the last epoch, both measured in eval mode; and a metric of the validation set beside its loss."""

    def render(self, task: Task) -> Text:
        metrics = task.fields.get("metrics") or {}
        parts = [f"{label} {metrics[name]:+.4f}" if name == "val_gap" else f"{label} {metrics[name]:.4f}"
                 for name, label in LOSSES.items() if name in metrics]
        if "val_accuracy" in metrics:
            parts.append(f"accuracy {metrics['val_accuracy']:.4f}")
        return Text("  ".join(parts))


class _Left(ProgressColumn):
    def render(self, task: Task) -> Text:
        left = task.fields.get("left")
        return Text("" if left is None or task.finished else f"{duration(left)} left")


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
