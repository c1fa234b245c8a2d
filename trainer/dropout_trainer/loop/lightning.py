"""The job in a Lightning Trainer: one callback."""

import signal
from operator import attrgetter
from typing import Any

from lightning import pytorch as pl
from torch import Tensor

from dropout_trainer.data import Data, Split
from dropout_trainer.loop.job import METRIC, Job
from dropout_trainer.loop.parts import Stateful
from dropout_trainer.train.ending import STOPPING


class _Progress:
    """Lightning's counters of epochs and steps, of a loop between two epochs."""

    def __init__(self, loop: Any) -> None:
        self._loop = loop

    def state_dict(self) -> dict[str, Any]:
        return dict(self._loop.state_dict())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Each by itself: the loop's own takes what follows for a restart within an epoch, which draws no batches anew."""
        for path, value in state.items():
            owner, _, name = path.rpartition(".")
            loop = attrgetter(owner)(self._loop) if owner else self._loop
            if name == "state_dict":
                loop.on_load_checkpoint(value)
            else:
                getattr(loop, name).load_state_dict(value)
        for progress in (self._loop.epoch_progress.current, self._loop.epoch_progress.total):
            progress.ready = progress.completed  # it was saved where the next epoch begins


class DropoutCallback(pl.Callback):  # type: ignore[misc]  # mypy does not follow its import
    """Applies the job's plan, goes on from its checkpoint, records each epoch, saves and at the end exports the module.

    What the module logs by self.log goes to the job's run under the same names; call the losses that are measured in eval mode train_loss
    and val_loss. `test` is what `Job.export` takes. The module's forward must take those inputs. Use it in place of Lightning's loggers and
    checkpoints, with max_epochs=job.epochs.
    """

    def __init__(self, job: Job, test: Data | Split | tuple[Tensor, Tensor]) -> None:
        self._job, self._test = job, test
        self._handlers = {number: signal.getsignal(number) for number in STOPPING}

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Before the optimisers are made."""
        if self._job.plan is None:
            self._job.apply(pl_module)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for number, handler in self._handlers.items():  # Lightning has put its own in front, which end between two checkpoints
            signal.signal(number, handler)
        schedulers = [config.scheduler for config in trainer.lr_scheduler_configs if isinstance(config.scheduler, Stateful)]
        self._job.resume(pl_module, *trainer.optimizers, *schedulers, _Progress(trainer.fit_loop))

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Only here are schedulers and counters at the end of the epoch before."""
        self._ended(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._ended(trainer)
        self._job.export(pl_module, self._test)

    def _ended(self, trainer: pl.Trainer) -> None:
        epoch = trainer.fit_loop.epoch_progress.current.completed
        if epoch <= self._job.epoch:
            return
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items() if METRIC.fullmatch(name)}
        self._job.log(epoch, **metrics)
        self._job.save(epoch)
