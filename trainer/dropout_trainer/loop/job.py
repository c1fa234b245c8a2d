"""The job of this process, in the hands of a training loop that the user has written."""

import logging
import math
import os
import re
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NoReturn

import torch
from torch import Tensor, nn

from dropout_api.dropout import DropoutSpec
from dropout_api.names import Env, ExitCode, Metric, Torchrun
from dropout_api.report import MAX_METRICS, TrainReport
from dropout_api.spec import CommandJobSpec
from dropout_api.task import CommandTask
from dropout_trainer.data import Data, Split
from dropout_trainer.dropout.plan import AppliedPlan, apply_plan, make_plan, resolve_fast
from dropout_trainer.errors import StageFailure
from dropout_trainer.loop import parts as parts_
from dropout_trainer.loop.handing_over import Trained, unwrapped
from dropout_trainer.loop.keeping import Bookmark, Content, Keeper, load_latest, place_of
from dropout_trainer.loop.parts import Part
from dropout_trainer.loop.recording import Recorder, Told
from dropout_trainer.stage import mark_of_end, write_report
from dropout_trainer.train.distributed import ALONE, World
from dropout_trainer.train.ending import Preempted, Terminated, stoppable
from dropout_trainer.train.seeds import derive, repeated, seed_everything
from dropout_trainer.train.state import GlobalStreams

NEVER_APPLIED = "spec.dropout is set, but the program never called job.apply(model): call it before the optimiser is made"
METRIC = re.compile(r"[a-z][a-z0-9_]{0,63}")
log = logging.getLogger(__name__)


@dataclass
class Job:
    """Made by `start`. Ranks above 0 get plan, seeds and checkpoints; they write nothing."""

    task: CommandTask
    rank: int
    device: torch.device
    """Where the job lets this process compute."""
    seeds: Mapping[str, int]
    """Of every random stream, of this rank."""
    stopped: Callable[[], int]
    """The signal that has asked this process to end, 0 before."""
    recorder: Recorder | None
    """Of rank 0 alone."""
    plan: AppliedPlan | None = None
    """Once it was applied."""
    keeper: Keeper | None = None
    parts: Sequence[Part] = ()
    """What is saved, as it was handed to `resume`."""
    epoch: int = 0
    """The latest that was logged."""
    _since: float = field(default_factory=time.monotonic)

    @property
    def spec(self) -> CommandJobSpec:
        return self.task.spec

    @property
    def epochs(self) -> int:
        """How many the spec asks for."""
        return self.spec.training.epochs

    def apply(self, model: nn.Module) -> AppliedPlan:
        """Puts the spec's dropout plan into `model`, in place; no name of a weight changes. Before an optimiser is made and before DDP.

        Rates with a schedule move with each logged epoch; for steps in between there is `at` of what is returned. Raises StageFailure for
        a rule that matches no layer.
        """
        fast = resolve_fast(self.spec.dropout.implementation, self.device, self.spec.training.compile)
        self.plan = apply_plan(make_plan(model, self.spec.dropout, fast=fast), model)
        if self.recorder:
            self.recorder.plan(self.plan.rows, model)
        return self.plan

    def resume(self, *parts: Part) -> int:
        """Loads the job's last good checkpoint into `parts` and says how many epochs are done, 0 when there is none.

        `parts` is all that training changes: models, optimisers, schedulers, gradient scalers, generators of one's own. The same parts in
        the same order are what `save` saves. The global generators come back too, so this goes last before the loop. Without
        spec.checkpoint nothing is loaded or saved. Raises StageFailure when the checkpoints cannot be reached.
        """
        parts_.check(parts)
        place = place_of(self.task, writes=self.rank == 0)
        if place is None:
            return 0
        self.parts = parts
        found = load_latest(*place, parts)
        if self.recorder:
            assert self.spec.checkpoint is not None
            self.keeper = Keeper(*place, self.spec.checkpoint, {found.number: found.manifest} if found else {})
        if found is None:
            return 0
        self._take_up(found.bookmark)
        log.info("goes on from checkpoint %d: epoch %d", found.number, self.epoch + 1)
        return self.epoch

    def log(self, epoch: int, *, train_loss: float | None = None, val_loss: float | None = None, **metrics: float) -> None:
        """Tells of an epoch, counted from 1: to MLflow, Prometheus, the operator and the log.

        Both losses are to be measured in eval mode; val_gap is made of them. The loss that was minimised is called
        train_loss_with_dropout. Raises StageFailure when one of the losses is not finite, or a name is none for a metric.
        """
        losses = {Metric.TRAIN_LOSS.value: train_loss, Metric.VAL_LOSS.value: val_loss}
        given = {name: float(value) for name, value in {**losses, **metrics}.items() if value is not None}
        _check_metrics(epoch, given)
        now = time.monotonic()
        told = Told.of(epoch, self.epochs, now - self._since, given)
        self.epoch, self._since = epoch, now
        if self.plan:
            self.plan.at(min(1.0, epoch / self.epochs))
        if self.recorder:
            self.recorder.epoch(told)

    def save(self, epoch: int) -> None:
        """Saves what `resume` was given after this epoch, counted from 1, when spec.checkpoint says so, and after the last.

        The loop waits for a copy in memory alone. Where torch.distributed is initialised, each rank calls it after the same epochs: a
        signal to one ends all at the same save. Raises Preempted, which is no Exception, once it is saved after SIGTERM; StageFailure
        PeerLost when another process is gone.
        """
        _check_epoch("save", epoch)
        world = World.joined() if self.spec.checkpoint else ALONE
        wished = self.keeper is not None and (self.keeper.due(epoch, 0) or epoch >= self.epochs)
        due, stopped = world.largest(wished, self.stopped())
        if due or stopped:
            streams = world.gather(GlobalStreams.now())
            if self.keeper:
                self.keeper.save(self._content(epoch, streams))
        if stopped:
            self._leave(stopped, world)

    def reached(self) -> str:
        """For people: how far training has come."""
        return f"after epoch {self.epoch} of {self.epochs}" if self.epoch else "before its first epoch"

    def export(self, model: nn.Module, data: Data | Split | tuple[Tensor, Tensor]) -> None:
        """Hands the trained model over to the gate: in eval mode, with answers to the test set, as the run's candidate. Once, at the end.

        `data` is the test set, as (inputs [N, ...], targets): int64 [N] for classes, float32 [N, values] for a regression; or a `Data`,
        which also tells names and the training targets' deviation. The model answers [N, outputs], or an object with such `logits`. Raises
        StageFailure when model, plan and data do not go together, the model cannot be exported, or MLflow does not take it.
        """
        if self.recorder is None:
            return
        if stopped := self.stopped():
            self._leave(stopped)
        try:
            with stoppable():
                self._hand_over(self.recorder, unwrapped(model), data)
        except Terminated as end:
            self._leave(end.number)

    def close(self) -> None:
        """Sees through what is being written. Called at the process's end."""
        if self.keeper:
            self.keeper.wait()
        if self.recorder:
            self.recorder.end()
        if (report := os.environ.get(Env.TERMINATION_LOG)) and Torchrun.RANK in os.environ:
            mark_of_end(Path(report)).touch()

    def _hand_over(self, recorder: Recorder, model: nn.Module, data: Data | Split | tuple[Tensor, Tensor]) -> None:
        plan = self.plan or self._plan_of_its_own(model)
        trained = Trained.of(model, plan, data, self.spec.training.loss)
        tested = trained.tested(self.spec)
        log.info("%s", "  ".join(f"{name} {value:.4g}" for name, value in tested.items()))
        recorder.tracking.metrics(tested, max(1, self.epoch))
        with TemporaryDirectory(prefix="candidate-") as folder:
            recorder.hand_over(trained.write(Path(folder), self.spec, self.seeds, plan))
        metrics = dict(list((tested | recorder.metrics).items())[:MAX_METRICS])
        message = f"trained for {self.epoch} epochs by {shlex.join(self.spec.command)[:200]}"
        write_report(TrainReport(reason="Trained", message=message, epoch=self.epoch, epochs=self.epochs, metrics=metrics))

    def _leave(self, number: int, world: World = ALONE) -> NoReturn:
        """Ends a training that a signal has asked to end. Raises Preempted, or Terminated when there is nothing to go on from."""
        if self.keeper:
            self.keeper.wait()
        saved, = world.largest(self.keeper is not None and self.keeper.saved is not None)
        unasked = world.alone and self.keeper is None  # another rank by itself, whose parts rank 0 saves
        if saved or (unasked and self.parts):
            raise Preempted(self.reached(), number)
        raise Terminated(self.reached(), number)

    def _plan_of_its_own(self, model: nn.Module) -> AppliedPlan:
        """What dropout the model has, where the job asks for none. Raises StageFailure when it asks for some that was never applied."""
        if self.spec.dropout != DropoutSpec():
            raise StageFailure("UserCode", NEVER_APPLIED, ExitCode.USER_CODE)
        return AppliedPlan(tuple(make_plan(model, DropoutSpec(), fast=False)), model)

    def _content(self, epoch: int, streams: Sequence[GlobalStreams]) -> Content:
        states, tensors = parts_.captured(self.parts)
        assert self.recorder is not None
        return Content(Bookmark(
            epoch=epoch, seconds=self.recorder.seconds, parts=parts_.kinds(self.parts), states=states,
            streams=streams[0], others=list(streams[1:]), last=self.recorder.metrics,
        ), tensors, self.recorder.tracking.unsent())

    def _take_up(self, at: Bookmark) -> None:
        self.epoch = at.epoch
        if self.plan:
            self.plan.at(min(1.0, at.epoch / self.epochs))
        if self.rank < len(streams := [at.streams, *at.others]):
            streams[self.rank].globals().restore()
        else:  # of ranks that torch.distributed did not know of; new ones, and not those of the first epoch
            seed_everything(derive(repeated(self.spec.seed, at.epoch), self.rank))
        if self.recorder:
            self.recorder.take_up(at.seconds, at.epoch, at.last, at.unsent)
        self._since = time.monotonic()


def _check_epoch(call: str, epoch: int) -> None:
    if epoch < 1:
        raise StageFailure("UserCode", f"job.{call}: epochs are counted from 1, but this is {epoch}", ExitCode.USER_CODE)


def _check_metrics(epoch: int, metrics: Mapping[str, float]) -> None:
    _check_epoch("log", epoch)
    if wrong := next((name for name in metrics if not METRIC.fullmatch(name)), None):
        message = f"job.log: {wrong[:80]!r} is no name for a metric; use up to 64 of a to z, 0 to 9 and _, with a letter in front"
        raise StageFailure("UserCode", message, ExitCode.USER_CODE)
    for name in (Metric.TRAIN_LOSS.value, Metric.VAL_LOSS.value, Metric.DROPOUT_LOSS.value):
        if not math.isfinite(metrics.get(name, 0.0)):
            message = f"{name} is {metrics[name]} after epoch {epoch}; lower the learning rate or clip gradients"
            raise StageFailure("NonFiniteLoss", message, ExitCode.NON_FINITE_LOSS)
