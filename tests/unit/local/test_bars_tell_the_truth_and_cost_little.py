"""What the bars show is what the loop has told; most steps reach no terminal; lines of the log stay whole above them."""

import io
import itertools
import logging
from dataclasses import replace

import pytest
from rich.console import Console

from dropout_api.metrics import MetricName
from dropout_api.report import ProgressSample
from dropout_trainer.local.bars import TOLD, Bars, Pace, duration, losses
from dropout_trainer.train.loop import EpochResult
from dropout_trainer.train.telemetry import Telemetry

RESULT = EpochResult(
    epoch=1, epochs=4, train_loss_with_dropout=0.9, train_loss=0.25, val={MetricName.LOSS: 0.75, MetricName.ACCURACY: 0.5},
    learning_rate=0.001, seconds=2.0,
)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def bars(clock: Clock, width: int = 100) -> tuple[Bars, io.StringIO]:
    file = io.StringIO()
    return Bars(Console(file=file, force_terminal=True, width=width, color_system=None), clock), file


def drawn(shown: Bars) -> list[str]:
    console = Console(width=100, color_system=None)
    with console.capture() as capture:
        for part in shown._progress.get_renderables():
            console.print(part)
    return [line.replace("━", "").replace("╸", "").replace("╺", "").strip() for line in capture.get().splitlines()]


def test_epochs_steps_losses_and_what_is_left() -> None:
    clock = Clock()
    shown, _ = bars(clock)
    telemetry = Telemetry(attempt=1, epochs=4, watcher=shown)
    telemetry.begin(10)
    clock.now = 5.0
    telemetry.stepped(5)
    assert [line.split() for line in drawn(shown)] == [["epoch", "0/4", "0:35", "left"], ["step", "5/10"]]
    clock.now = 10.0
    telemetry.observe(RESULT)
    told = "train 0.2500  val 0.7500  gap +0.5000  accuracy 0.5"
    assert [" ".join(line.split()) for line in drawn(shown)] == ["epoch 1/4 0:30 left", "step 10/10", " ".join(told.split())]


def test_a_training_that_goes_on_is_judged_by_its_own_pace() -> None:
    clock = Clock()
    shown, _ = bars(clock)
    telemetry = Telemetry(attempt=2, epochs=4, watcher=shown)
    telemetry.take_up(1000.0, replace(RESULT, epoch=2))
    telemetry.begin(10)
    clock.now = 1.0
    telemetry.stepped(25)  # half an epoch after the two that were done
    assert [" ".join(line.split()) for line in drawn(shown)][:2] == ["epoch 2/4 0:03 left", "step 5/10"]


def test_a_trial_that_ended_early_makes_no_pace() -> None:
    clock = Clock()
    shown, _ = bars(clock)
    telemetry = Telemetry(attempt=1, epochs=8, watcher=shown)
    telemetry.begin(10)
    clock.now = 2.0
    telemetry.observe(RESULT)  # the first of four
    telemetry.advance(4)
    telemetry.begin(10)
    clock.now = 4.0
    telemetry.stepped(10)
    assert [" ".join(line.split()) for line in drawn(shown)][:2] == ["epoch 4/8 0:06 left", "step 10/10"]


def test_most_steps_only_look_at_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    shown, _ = bars(clock)
    shown.begin(ProgressSample(attempt=1, epoch=0, epochs=1), 0, 1000)
    updates = itertools.count()
    monkeypatch.setattr(shown._progress, "update", lambda *_, **__: next(updates))
    for step in range(1, 1001):
        clock.now += TOLD / 100
        shown.step(step)
    assert next(updates) <= 2 * 11  # two bars


def test_lines_of_the_log_go_above_and_no_line_fills_a_narrow_terminal() -> None:
    shown, file = bars(Clock(), width=80)
    log = logging.getLogger("above")
    root = logging.getLogger().handlers[:]
    with shown.shown():
        shown.begin(ProgressSample(attempt=1, epoch=0, epochs=100_000), 0, 100_000)
        log.warning("a line [with brackets] of the log")
        shown.epoch(RESULT, ProgressSample(attempt=1, epoch=1, epochs=100_000, metrics=RESULT.metrics()))
    assert logging.getLogger().handlers == root
    lines = [line.rstrip() for line in file.getvalue().replace("\r", "\n").split("\n")]
    assert any(line.split("\x1b[2K")[-1].endswith("a line [with brackets] of the log") for line in lines)
    assert max(len(line.split("\x1b[2K")[-1]) for line in lines if "━" in line) < 78


@pytest.mark.parametrize(("seconds", "text"), [(0.2, "0:01"), (59.5, "1:00"), (3599, "59:59"), (3600, "1:00:00"), (90_061, "25:01:01")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_nothing_is_foretold_from_nothing() -> None:
    pace = Pace(Clock())
    pace.begin(2)
    assert pace.left(2, 4) is None
    assert losses({}) == ""
