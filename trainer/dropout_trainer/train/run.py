"""The training stage: from a task to a candidate in the run's artifacts and a report."""

import logging
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

from dropout_api.candidate import PlanRow
from dropout_api.names import METRICS_PORT, Metric, Tag
from dropout_api.report import TrainReport
from dropout_api.task import TrainTask
from dropout_trainer.data import Data, digest
from dropout_trainer.dropout import apply_plan, make_plan, resolve_fast
from dropout_trainer.gate.gate import attest
from dropout_trainer.gate.inputs import Call, Inputs
from dropout_trainer.stage import read_task
from dropout_trainer.train.candidate import rehearse, write_candidate
from dropout_trainer.train.device import pick_device, usable_threads
from dropout_trainer.train.ending import Terminated
from dropout_trainer.train.export import eval_copy
from dropout_trainer.train.factories import build_data, build_model
from dropout_trainer.train.facts import Facts, candidate_config, run_params
from dropout_trainer.train.loop import EpochResult, evaluate, fit
from dropout_trainer.train.objective import make_task
from dropout_trainer.train.seeds import derive, seed_everything, set_determinism
from dropout_trainer.train.telemetry import Telemetry
from dropout_trainer.train.tracking import Tracking
from dropout_trainer.train.usercode import user_code

OUTAGE_SECONDS = 300.0
"""How long MLflow may be away at the end of a training before what it has not taken is given up."""
ATTEST_ROWS = 16
"""Rows of the test set on which the checks of the live model are made."""
FAREWELL_SECONDS = 2.0
"""How long a training that ends before its time waits for MLflow; not at all while that is away."""
LIVE_IN_EVAL = (
    "the model draws random numbers in eval mode, so some of its dropout is live there and the gate will reject it; "
    "pass training=self.training to functional dropout, or use modules such as nn.Dropout"
)
log = logging.getLogger(__name__)


def main() -> TrainReport:
    """Does the task in the environment. Raises StageFailure, or Terminated with the epoch it had reached."""
    task = read_task(TrainTask)
    tracking = Tracking(task.run.id)
    telemetry = Telemetry(task.attempt, task.spec.training.epochs, lambda: tracking.healthy)
    telemetry.start(METRICS_PORT)
    try:
        return train(task, tracking, telemetry)
    except Terminated:
        tracking.drain(FAREWELL_SECONDS if tracking.healthy else 0)
        at = telemetry.progress()
        raise Terminated(f"after epoch {at.epoch} of {at.epochs}") from None
    except Exception:
        tracking.drain(FAREWELL_SECONDS if tracking.healthy else 0)
        raise
    finally:
        telemetry.stop()


def train(task: TrainTask, tracking: Tracking, telemetry: Telemetry) -> TrainReport:
    """Trains, exports and uploads. Raises StageFailure."""
    spec, seeds = task.spec, derive(task.spec.seed)
    torch.set_num_threads(usable_threads(spec.resources_per_node))
    set_determinism(spec.determinism)
    seed_everything(seeds)
    data = build_data(spec.data, seeds["split"])
    answer = make_task(data, spec.training.loss)
    device = pick_device(spec.resources_per_node)
    model = build_model(spec.model, data, answer.outputs).to(device)
    plan = make_plan(model, spec.dropout, fast=resolve_fast(spec.dropout.implementation, device, spec.training.compile))
    apply_plan(plan, model)
    _log_plan(plan, bool(spec.dropout.rate))
    with user_code("spec.model.factory: exporting raised", spec.model.factory):
        rehearse(model, data.test.inputs, spec.export)

    facts = Facts(spec, seeds, plan, data, digest(data), answer, str(device), torch.get_num_threads())
    tracking.start()
    tracking.tag(Tag.ATTEMPT, str(task.attempt))
    tracking.params(run_params(facts, model))
    tracking.plan(plan)
    with user_code("spec.model.factory: training the model raised", spec.model.factory):
        kept = _fit(model, data, facts, tracking, telemetry)
        metrics = kept.metrics() | _test_metrics(model, data)
        tracking.metrics({name: metrics[name] for name in (Metric.TEST_LOSS, Metric.TEST_ACCURACY)}, kept.epoch)
    _hand_over(model, facts, tracking)
    message = f"trained for {telemetry.progress().epoch} epochs, kept the weights of epoch {kept.epoch}"
    return TrainReport(reason="Trained", message=message, epoch=telemetry.progress().epoch, epochs=spec.training.epochs, metrics=metrics)


def _fit(model: nn.Module, data: Data, facts: Facts, tracking: Tracking, telemetry: Telemetry) -> EpochResult:
    """Consumes the stream of epochs; returns the one whose weights the model holds at the end."""
    kept, warned = None, False
    for result in fit(model, data, facts.plan, facts.spec.training, dict(facts.seeds)):
        log.info("%s", result)
        telemetry.observe(result)
        tracking.metrics(result.metrics() | {Metric.EPOCH_SECONDS.value: result.seconds}, result.epoch)
        kept = result if result.kept or kept is None else kept
        if result.random_in_eval and not warned:
            log.warning(LIVE_IN_EVAL)
            warned = True
    assert kept is not None  # a spec has one epoch at least
    return kept


def _test_metrics(model: nn.Module, data: Data) -> dict[str, float]:
    score = evaluate(model, data.test)
    log.info("test  loss %.4f  accuracy %.3f", score.loss, score.accuracy)
    return {Metric.TEST_LOSS.value: score.loss, Metric.TEST_ACCURACY.value: score.accuracy}


def _hand_over(model: nn.Module, facts: Facts, tracking: Tracking) -> None:
    """Exports and uploads the candidate, and sees the rest of the record through to MLflow."""
    with TemporaryDirectory(prefix="candidate-") as folder, user_code("spec.model.factory: exporting raised", facts.spec.model.factory):
        copy = eval_copy(model)
        found = attest(copy, Inputs(Call((facts.data.test.inputs[:ATTEST_ROWS],))))
        files = write_candidate(Path(folder), copy, facts.data.test, candidate_config(facts, found), facts.spec.export)
        tracking.upload(files, OUTAGE_SECONDS)
    if missing := tracking.drain(OUTAGE_SECONDS):
        log.warning("%d writes to MLflow are lost: its run shows less than was trained", missing)


def _log_plan(plan: Sequence[PlanRow], asked: bool) -> None:
    for row in plan:
        log.info("dropout  %s  %s  rate %g  by %s", row.layer, row.kind, row.rate, row.why)
    if asked and not plan:
        log.warning("spec.dropout.rate is set, but the model has no dropout layer")
