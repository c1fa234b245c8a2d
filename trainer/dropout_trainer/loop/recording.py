"""What a loop of the user's own tells of itself: the log, the job's MLflow run, /metrics and /progress."""

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from dropout_api.candidate import PlanRow
from dropout_api.metrics import MetricName
from dropout_api.names import METRICS_PORT, Metric, Tag
from dropout_api.report import ProgressSample
from dropout_api.task import CommandTask
from dropout_trainer.dropout.table import log_plan
from dropout_trainer.train.environment import environment, versions
from dropout_trainer.train.facts import job_params, plan_params, plan_table
from dropout_trainer.train.following import FAREWELL_SECONDS
from dropout_trainer.train.loop import EpochResult
from dropout_trainer.train.points import Points
from dropout_trainer.train.telemetry import Telemetry
from dropout_trainer.train.tracking import hand_over, tracking_of


@dataclass(frozen=True)
class Told(EpochResult):
    """An epoch as the user's loop tells of it; NaN is what it does not measure."""

    others: Mapping[str, float] = field(default_factory=dict)
    """All but the two losses, by MLflow metric name."""

    @staticmethod
    def of(epoch: int, epochs: int, seconds: float, metrics: Mapping[str, float]) -> "Told":
        others = {name: value for name, value in metrics.items() if name not in (Metric.TRAIN_LOSS, Metric.VAL_LOSS, Metric.VAL_GAP)}
        return Told(
            epoch=epoch, epochs=epochs, train_loss_with_dropout=others.get(Metric.DROPOUT_LOSS, math.nan),
            train_loss=metrics.get(Metric.TRAIN_LOSS, math.nan), val={MetricName.LOSS: metrics.get(Metric.VAL_LOSS, math.nan)},
            learning_rate=others.get(Metric.LEARNING_RATE, math.nan), seconds=seconds, others=others,
        )

    def metrics(self) -> dict[str, float]:
        losses = {Metric.TRAIN_LOSS.value: self.train_loss, Metric.VAL_LOSS.value: self.val_loss, Metric.VAL_GAP.value: self.val_gap}
        return {**losses, **self.others}

    def measured(self) -> dict[str, float]:
        """Without what it does not measure."""
        return {name: value for name, value in self.metrics().items() if name in self.others or not math.isnan(value)}

    def __str__(self) -> str:
        metrics = "  ".join(f"{name} {value:.4g}" for name, value in self.measured().items())
        return f"epoch {self.epoch}/{self.epochs}  {metrics}  {self.seconds:.1f}s"


class Recorder:
    """Of rank 0. What is told goes on from a thread of its own: the loop does not wait for MLflow."""

    def __init__(self, task: CommandTask) -> None:
        self._task = task
        self.tracking = tracking_of(task)
        self._sends = False
        self._telemetry = Telemetry(task.attempt, task.spec.training.epochs, lambda: self.tracking.healthy)
        self._telemetry.start(METRICS_PORT)
        self.metrics: dict[str, float] = {}
        """Of the latest epoch."""

    def begin(self, seeds: Mapping[str, int], device: torch.device) -> None:
        """All that is known before there is a model."""
        task = self._task
        if task.attempt == 1:  # another one is known to go on or not only once its checkpoint was looked for
            self._send()
        self.tracking.tag(Tag.ATTEMPT, str(task.attempt))
        here = environment(task.image) | {"device": str(device), "threads": torch.get_num_threads()}
        self.tracking.params({"command": shlex.join(task.spec.command), **job_params(task.spec, seeds, versions(), here)})
        self.tracking.text("spec.json", task.spec.to_json())

    def plan(self, rows: Sequence[PlanRow], model: nn.Module) -> None:
        log_plan(rows, self._task.spec.dropout)
        size = sum(parameter.numel() for parameter in model.parameters())
        self.tracking.params({"model.class": type(model).__qualname__, "model.parameters": size, **plan_params(rows)})
        self.tracking.table("dropout_plan.json", *plan_table(rows))

    def take_up(self, seconds: float, epoch: int, metrics: Mapping[str, float], unsent: Sequence[Points]) -> None:
        """Goes on where an earlier attempt was."""
        self.metrics = dict(metrics)
        self._telemetry.take_up(seconds, Told.of(epoch, self._task.spec.training.epochs, 0.0, metrics))
        self._send(unsent)

    def _send(self, unsent: Sequence[Points] = ()) -> None:
        """Begins to send to MLflow, once. `unsent` is what an earlier attempt's checkpoint carries."""
        if self._sends:
            return
        self._sends = True
        if self._task.attempt > 1:
            self.tracking.take_up(unsent)
        self.tracking.start()

    def epoch(self, told: Told) -> None:
        self._send()
        self.metrics = told.measured()
        self._telemetry.observe(told)
        self.tracking.metrics(self.metrics | {Metric.EPOCH_SECONDS.value: told.seconds}, told.epoch)

    @property
    def seconds(self) -> float:
        """Of all epochs so far."""
        return self._telemetry.seconds

    def progress(self) -> ProgressSample:
        return self._telemetry.progress()

    def hand_over(self, files: Sequence[Path]) -> None:
        """Uploads the candidate and sees the rest of the record through. Raises StageFailure when MLflow does not take the candidate."""
        self._send()
        hand_over(self.tracking, files)

    def end(self) -> None:
        """May be called after `hand_over` as instead of it."""
        self.tracking.drain(FAREWELL_SECONDS if self.tracking.healthy else 0)
        self._telemetry.stop()
