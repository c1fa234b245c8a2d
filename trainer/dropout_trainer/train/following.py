"""What becomes of a training's epochs: telemetry, MLflow, the last good weights; and between steps, checkpoints."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from safetensors.torch import save_file

from dropout_api.candidate import WEIGHTS
from dropout_api.names import Metric
from dropout_trainer.errors import StageFailure
from dropout_trainer.train.checkpoints.read import Resumption
from dropout_trainer.train.checkpoints.saver import Content, Saver, Witness
from dropout_trainer.train.checkpoints.schema import Journal
from dropout_trainer.train.distributed import World
from dropout_trainer.train.ending import Preempted, Terminated, decided, noting
from dropout_trainer.train.loop import EpochResult, Training, fit
from dropout_trainer.train.state import Captured, State
from dropout_trainer.train.stopping import Snapshot
from dropout_trainer.train.telemetry import Telemetry
from dropout_trainer.train.tracking import Tracking

FAREWELL_SECONDS = 2.0
"""How long a training that ends before its time waits for MLflow; not at all while that is away."""
LAST_GOOD = "last-good"
"""Folder of the run's artifacts for the weights of the last epoch before a loss that was not finite."""
LIVE_IN_EVAL = (
    "the model draws random numbers in eval mode, so some of its dropout is live there and the gate will reject it; "
    "pass training=self.training to functional dropout, or use modules such as nn.Dropout"
)
log = logging.getLogger(__name__)


class Follower:
    """Runs the trainings of a job one after another and follows them. With a `saver` they are saved; `resumed` is gone on from."""

    def __init__(
        self, tracking: Tracking, telemetry: Telemetry, saver: Saver | Witness | None = None, resumed: Resumption | None = None,
    ) -> None:
        self._tracking, self._telemetry, self._saver, self._resumed = tracking, telemetry, saver, resumed
        self.ended = list(resumed.journal.ended) if resumed else []
        """Metrics of the trainings that have come to their end, those of earlier attempts among them."""
        self._kept: EpochResult | None = None
        self._last: EpochResult | None = None
        self._good: Snapshot | None = None

    def fit(self, training: Training, prefix: str = "") -> EpochResult:
        """Trains to the end; returns the epoch whose weights the model then holds. `prefix` goes before its metrics' names in MLflow.

        Raises StageFailure as the loop does, and Terminated after one of STOPPING, once a checkpoint is there.
        """
        self._telemetry.advance(len(self.ended) * training.spec.epochs)
        start, warned = self._taken_up(), False
        self._telemetry.begin(training.steps)
        with self._saving_last_good(training.world), self._watched(training.world) as between_steps:
            for result in fit(training, resume_from=start, between_steps=between_steps):
                self._note(result, prefix)
                self._good = Snapshot.of(training.model, result.epoch)
                if result.random_in_eval and not warned:
                    log.warning(LIVE_IN_EVAL)
                    warned = True
        assert self._kept is not None  # a spec has one epoch at least
        self.ended.append(self._kept.metrics())
        return self._kept

    def _taken_up(self) -> Captured | None:
        """Where this training goes on; None when it starts."""
        resumed, self._resumed = self._resumed, None
        self._kept = self._last = self._good = None
        if resumed is None:
            return None
        journal = resumed.journal
        self._kept, self._last, self._good = journal.kept, journal.last, resumed.good
        self._telemetry.take_up(journal.seconds, journal.last)
        log.info("goes on from %s", resumed)
        return resumed.captured

    def _note(self, result: EpochResult, prefix: str) -> None:
        self._telemetry.observe(result)
        values = result.metrics() | {Metric.EPOCH_SECONDS.value: result.seconds}
        self._tracking.metrics({f"{prefix}{name}": value for name, value in values.items()}, result.epoch)
        self._last = result
        self._kept = result if result.kept or self._kept is None else self._kept

    @contextmanager
    def _watched(self, world: World) -> Iterator[Callable[[State], None]]:
        """What the loop is to call between steps."""
        saver, stepped = self._saver, self._telemetry.stepped
        if saver is None:
            yield lambda state: stepped(state.steps)
            return

        def between_steps(state: State) -> None:
            stepped(state.steps)
            self._save(saver, state, stopped(), world)

        with noting() as stopped:
            yield between_steps

    def _save(self, saver: Saver | Witness, state: State, stopped: int, world: World) -> None:
        """When it is time by rank 0's clock, or any rank is to stop: all must do it at the same step."""
        whole = state.batch == 0
        wished = saver.due(state.epoch - 1 if whole else None, state.steps) or (whole and state.finished)
        due, stopped = world.largest(wished, stopped)
        if not due and not stopped:
            return
        state.losses.sums()  # here, since it is a collective
        streams = world.gather(state.streams())
        if isinstance(saver, Saver):
            journal = Journal(ended=self.ended, kept=self._kept, last=self._last, seconds=self._telemetry.seconds)
            saver.save(Content(state.captured(self._good, streams[1:]), self._good, journal, self._tracking.unsent()))
        if stopped:
            saver.wait()
            raise (Preempted if world.broadcast(saver.saved is not None) else Terminated)(number=stopped)

    @contextmanager
    def _saving_last_good(self, world: World) -> Iterator[None]:
        """Of a training whose loss becomes not finite, the last snapshot is uploaded, and the error says where it lies."""
        try:
            yield
        except StageFailure as failure:
            good = self._good
            if failure.reason != "NonFiniteLoss" or not good:
                raise
            if not world.leads:
                world.outlast()
                raise
            with TemporaryDirectory(prefix="last-good-") as folder:
                path = Path(folder) / WEIGHTS
                save_file({name: tensor.cpu().contiguous() for name, tensor in good.weights.items()}, path)
                self._tracking.upload([path], FAREWELL_SECONDS, LAST_GOOD)
            message = f"{failure.message}; the weights of epoch {good.epoch} are the run's artifact {LAST_GOOD}/{WEIGHTS}"
            raise StageFailure(failure.reason, message, failure.exit_code) from None


@contextmanager
def finishing(saver: Saver | Witness | None) -> Iterator[None]:
    """Sees what is being written through; to be stopped is a preemption once there is something to go on from. Raises Preempted."""
    try:
        yield
    except Terminated as end:
        if saver is None:
            raise
        saver.wait()
        if saver.saved is None:
            raise
        raise Preempted(end.where, end.number) from None
    except BaseException:
        with decided():
            if saver is not None:
                saver.wait()
        raise
    if saver is not None:
        saver.wait()
