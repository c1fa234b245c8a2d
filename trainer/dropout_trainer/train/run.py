"""The training stage: from a task to a candidate in the run's artifacts and a report."""

import logging
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from torch import nn

from dropout_api.metrics import TaskKind
from dropout_api.names import METRICS_PORT, Tag
from dropout_api.report import MAX_METRICS, TrainReport
from dropout_api.spec import TrainingJobSpec
from dropout_api.task import TrainTask
from dropout_trainer.data import Data
from dropout_trainer.dropout.table import log_plan
from dropout_trainer.metrics.measure import measure, names_for
from dropout_trainer.metrics.tables import Table, by_class, by_segment
from dropout_trainer.train.candidate import attested, rehearse, write_candidate
from dropout_trainer.train.checkpoints.folder import Refused, folder_at
from dropout_trainer.train.checkpoints.read import Resumption, latest
from dropout_trainer.train.checkpoints.saver import Saver, Witness
from dropout_trainer.train.checkpoints.schema import identity
from dropout_trainer.train.distributed import ALONE, World, join
from dropout_trainer.train.ending import Terminated, decided
from dropout_trainer.train.evaluating import answers_of
from dropout_trainer.train.export import eval_copy
from dropout_trainer.train.facts import WEIGHTS_RUN, Facts, candidate_config, plan_table, run_params
from dropout_trainer.train.following import FAREWELL_SECONDS, Follower, finishing
from dropout_trainer.train.loop import Training
from dropout_trainer.train.muted import Muted
from dropout_trainer.train.preparing import Ground, facts_of, prepare, training_on
from dropout_trainer.train.telemetry import Telemetry
from dropout_trainer.train.tracking import Tracking, hand_over, tracking_of
from dropout_trainer.train.trials import all_epochs, data_of, summary, trials
from dropout_trainer.train.usercode import user_code
from dropout_trainer.train.weights import read_weights

log = logging.getLogger(__name__)


def main(task: TrainTask) -> TrainReport | None:
    """Does the task of a pod; a rank above 0 has nothing to report. Raises StageFailure, or Terminated with the epoch it had reached."""
    world = World.of()
    tracking = tracking_of(task) if world.leads else Muted()
    telemetry = Telemetry(task.attempt, all_epochs(task.spec.training), lambda: tracking.healthy)
    if world.leads:
        telemetry.start(METRICS_PORT)
    try:
        return train(task, tracking, telemetry, join(world, task.spec))
    except Terminated as end:
        tracking.drain(FAREWELL_SECONDS if tracking.healthy else 0)
        at = telemetry.progress()
        raise type(end)(f"after epoch {at.epoch} of {at.epochs}", end.number) from None
    except Exception:
        with decided():
            tracking.drain(FAREWELL_SECONDS if tracking.healthy else 0)
        raise
    finally:
        telemetry.stop()


def train(task: TrainTask, tracking: Tracking, telemetry: Telemetry, world: World = ALONE) -> TrainReport | None:
    """Trains together with the other ranks of `world`; then rank 0 exports and uploads, and the others return None. Raises StageFailure."""
    spec, wanted = task.spec, task.spec.model.weights
    start = world.broadcast(read_weights(wanted, task.weights, tracking.download) if wanted and world.leads else None)
    ground = prepare(spec, start, world)
    training = training_on(ground, ground.data, spec.seed)
    facts = facts_of(ground, training, task.image)
    world.require_same(facts.data_sha256, "spec.data.factory")
    if world.leads:
        rehearse_export(training, spec)
    saver, resumed = _checkpoints(task, facts, ground, training)
    if world.leads:
        if task.attempt > 1:
            tracking.take_up(resumed.journal.unsent if resumed else [])
        _record(task, facts, training, tracking)
    with finishing(saver):
        with user_code("spec.model.factory: training the model raised", spec.model.factory), world.watching():
            follower = Follower(tracking, telemetry, saver, resumed)
            told = _cross_validate(ground, follower)
            if told:  # they have moved the global generators and trained models of their own
                training = training_on(ground, ground.data, spec.seed)
            kept = follower.fit(training)
        world.leave()
        if not world.leads:
            return None
        with user_code("spec.model.factory: testing the model raised", spec.model.factory):
            metrics = _test(training, tracking) | kept.metrics() | told
            tracking.metrics({name: value for name, value in metrics.items() if name.startswith(("test_", "cv_"))}, kept.epoch)
        _hand_over(training.model, facts, tracking)
    at, before = telemetry.progress(), len(trials(spec.training.cross_validation, spec.seed))
    after = f" after {before} trials" if before else ""
    message = f"trained for {at.epoch - before * spec.training.epochs} epochs{after}, kept the weights of epoch {kept.epoch}"
    reported = dict(list(metrics.items())[:MAX_METRICS])
    return TrainReport(reason="Trained", message=message, epoch=at.epoch, epochs=at.epochs, metrics=reported)


def rehearse_export(training: Training, spec: TrainingJobSpec) -> None:
    """Raises StageFailure when the model cannot be exported as the spec asks; nothing is changed."""
    with user_code("spec.model.factory: exporting raised", spec.model.factory):
        training.plan.at(1.0)  # as it will be exported
        rehearse(training.model, training.data.test.inputs, spec.export)
        training.plan.at(0.0)


def _record(task: TrainTask, facts: Facts, training: Training, tracking: Tracking) -> None:
    """All that is known before the first epoch, to the log and to MLflow."""
    log_plan(facts.plan, task.spec.dropout)
    tracking.start()
    tracking.tag(Tag.ATTEMPT, str(task.attempt))
    tracking.params(run_params(facts, training.model) | ({WEIGHTS_RUN: task.weights.id} if task.weights else {}))
    tracking.text("spec.json", facts.spec.to_json())
    tracking.table("dropout_plan.json", *plan_table(facts.plan))


def _cross_validate(ground: Ground, follower: Follower) -> dict[str, float]:
    """Mean and deviation over the trials that the spec asks for; empty when it asks for none."""
    asked = ground.spec.training.cross_validation
    every = trials(asked, ground.spec.seed)
    for trial in every[len(follower.ended) :]:
        assert asked is not None
        log.info("trial %d, seed %d%s", trial.number, trial.seed, "" if trial.fold is None else f", fold {trial.fold + 1}/{asked.folds}")
        follower.fit(training_on(ground, data_of(trial, ground.data, asked.folds), trial.seed), trial.prefix)
    told = summary(follower.ended) if every else {}
    for name in (name for name in told if name.endswith("_mean")):
        log.info("%s %.4f ± %.4f", name.removesuffix("_mean"), told[name], told[name.removesuffix("mean") + "std"])
    return told


def _checkpoints(
    task: TrainTask, facts: Facts, ground: Ground, training: Training,
) -> tuple[Saver | Witness | None, Resumption | None]:
    """Where the job's checkpoints go, and the one to go on from; None and None for a job that keeps none. Raises StageFailure.

    Rank 0 alone reads and writes the store, so that all ranks go on from one place.
    """
    rule = task.spec.checkpoint
    if task.checkpoints is None or rule is None:
        return None, None
    if not ground.world.leads:
        return Witness(), ground.world.broadcast(None)
    folder, mine = folder_at(task.checkpoints), identity(task.run.id, task.spec, facts.data_sha256)
    resumed = latest(folder, mine, lambda ended: replace(training, data=_data_after(ended, ground)))
    return Saver(folder, mine, rule, resumed), ground.world.broadcast(resumed)


def _data_after(ended: int, ground: Ground) -> Data:
    """Of the training that follows so many ended ones. Raises Refused when there is none."""
    asked = ground.spec.training.cross_validation
    every = trials(asked, ground.spec.seed)
    if ended > len(every):
        raise Refused(f"state: {ended} trainings have ended, but this job has {len(every)} trials")
    return data_of(every[ended], ground.data, asked.folds) if asked and ended < len(every) else ground.data


def _test(training: Training, tracking: Tracking) -> dict[str, float]:
    """Metrics of the test set; what it comes to for each class and segment goes to MLflow as tables."""
    task, split, names = training.objective.task, training.data.test, names_for(training.objective.task, training.spec)
    answers, _ = answers_of(training.model, split)
    metrics = {f"test_{name}": value for name, value in measure(task, names, answers, split.targets).items()}
    log.info("%s", "  ".join(f"{name} {value:.4g}" for name, value in metrics.items()))
    if task.kind is TaskKind.CLASSIFICATION:
        _tell(tracking, "test_by_class.json", by_class(task, answers, split.targets))
    if split.segments is not None:
        _tell(tracking, "test_by_segment.json", by_segment(task, names, answers, split))
    return metrics


def _tell(tracking: Tracking, name: str, table: Table) -> None:
    tracking.table(name, table.columns, table.rows)


def _hand_over(model: nn.Module, facts: Facts, tracking: Tracking) -> None:
    """Exports and uploads the candidate, and sees the rest of the record through to MLflow."""
    with TemporaryDirectory(prefix="candidate-") as folder, user_code("spec.model.factory: exporting raised", facts.spec.model.factory):
        hand_over(tracking, write_all(Path(folder), model, facts))


def write_all(folder: Path, model: nn.Module, facts: Facts) -> list[Path]:
    """The candidate's files in `folder`, in the order in which to upload them. Raises StageFailure when the model cannot be exported."""
    copy = eval_copy(model)
    config = candidate_config(facts, attested(copy, facts.data.test.inputs))
    return write_candidate(folder, copy, facts.data.test, config, facts.spec.export)
