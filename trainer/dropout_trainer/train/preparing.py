"""From a spec to everything that a training needs, in the one order that makes it repeatable."""

import logging
from dataclasses import dataclass

import torch
from torch import nn

from dropout_api.candidate import PlanRow, Task
from dropout_api.names import ExitCode
from dropout_api.spec import TrainingJobSpec
from dropout_trainer.data import Data, digest
from dropout_trainer.dropout.advice import with_warnings
from dropout_trainer.dropout.plan import apply_plan, make_plan, resolve_fast
from dropout_trainer.errors import StageFailure
from dropout_trainer.train.augment import check as check_augmentation
from dropout_trainer.train.device import pick_device, usable_threads
from dropout_trainer.train.distributed import ALONE, World
from dropout_trainer.train.environment import environment, versions
from dropout_trainer.train.factories import build_data, build_model
from dropout_trainer.train.facts import Facts
from dropout_trainer.train.loop import Training
from dropout_trainer.train.objective import make_objective, make_task
from dropout_trainer.train.seeds import derive, seed_everything, set_determinism
from dropout_trainer.train.weights import Start, load_weights, require_same_meaning

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ground:
    """What all trainings of a job stand on: they differ in seeds and in the split."""

    spec: TrainingJobSpec
    data: Data
    task: Task
    device: torch.device
    start: Start | None = None
    """Weights to start from; None when they are drawn."""
    world: World = ALONE


def prepare(spec: TrainingJobSpec, start: Start | None = None, world: World = ALONE) -> Ground:
    """Sets threads, determinism and seeds of this process, and reads the data, which is the same on all ranks. Raises StageFailure."""
    _require_room(spec, world)
    torch.set_num_threads(max(1, usable_threads(spec.resources_per_node) // world.local_size))
    set_determinism(spec.determinism)
    seeds = derive(spec.seed)
    seed_everything(seeds)
    data = build_data(spec.data, seeds["split"])
    check_augmentation(spec.data.augmentation, data)
    return Ground(spec, data, make_task(data, spec.training.loss), pick_device(spec.resources_per_node), start, world)


def _require_room(spec: TrainingJobSpec, world: World) -> None:
    """Raises StageFailure for what does not go with several processes."""
    if world.alone:
        return
    if spec.training.compile:
        message = f"spec.training.compile does not go with {world.size} processes; set it to false, or train with one"
        raise StageFailure("SpecInvalid", message, ExitCode.SPEC_INVALID)
    if (rows := spec.training.batch_size) < (least := 2 * world.size):
        message = f"spec.training.batchSize: {rows} rows are too few for {world.size} processes; use {least} or more"
        raise StageFailure("SpecInvalid", message, ExitCode.SPEC_INVALID)


def training_on(ground: Ground, data: Data, seed: int) -> Training:
    """A new model with its dropout, and the rest of a training on `data` under `seed`. Raises StageFailure.

    Ranks build their model from the same streams, so they have one model; then each goes on with its own, so no two draw the same masks.
    """
    world, least = ground.world, 2 * ground.world.size
    if not world.alone and len(data.train) < least:
        message = f"spec.data: {len(data.train)} training rows are too few for {world.size} processes, of which each needs two"
        raise StageFailure("DataInvalid", message, ExitCode.DATA_INVALID)
    spec, seeds = ground.spec, derive(seed)
    seed_everything(seeds)
    model = build_model(spec.model, data, ground.task.outputs)
    if ground.start is not None and spec.model.weights is not None:
        require_same_meaning(ground.start, data)
        left = load_weights(model, ground.start.tensors, spec.model.weights.strict)
        log.info("weights  %d tensors taken, %d drawn from the seed", len(ground.start.tensors), len(left))
    model = model.to(ground.device)
    rows = _plan(ground, model, data)
    objective = make_objective(ground.task, data, spec.training.loss)
    if not world.leads:
        seeds = derive(seed, world.rank)
        seed_everything(seeds)
    return Training(model, data, objective, apply_plan(rows, model), spec.training, seeds, tuple(spec.data.augmentation), world)


def _plan(ground: Ground, model: nn.Module, data: Data) -> list[PlanRow]:
    """The dropout plan for `model`, with its warnings. Raises StageFailure for a rule that does not fit."""
    spec = ground.spec
    fast = resolve_fast(spec.dropout.implementation, ground.device, spec.training.compile)
    return with_warnings(make_plan(model, spec.dropout, fast=fast), model, data.train.inputs, len(data.train))


def facts_of(ground: Ground, training: Training, image: str | None) -> Facts:
    """What is recorded of it."""
    here = environment(image) | {"device": str(ground.device), "threads": torch.get_num_threads()}
    return Facts(
        ground.spec, training.seeds, training.plan.rows, training.data, digest(training.data), ground.task, versions(), here,
    )
