"""Toy-size real trainings. What goes in is a spec and data; what comes out is a stream of epochs, a model, files, a run."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from dropout_testing.device import DEVICE
from torch import nn

from dropout_api.candidate import PlanRow
from dropout_api.dropout import DropoutSpec
from dropout_api.training import TrainingSpec
from dropout_trainer.data import Data, Split
from dropout_trainer.dropout.plan import apply_plan, make_plan
from dropout_trainer.train.loop import EpochResult, Training, fit
from dropout_trainer.train.objective import make_objective, make_task
from dropout_trainer.train.seeds import derive, seed_everything


@dataclass(frozen=True)
class Trained:
    model: nn.Module
    plan: list[PlanRow]
    curve: list[EpochResult]


Train = Callable[..., Trained]


@pytest.fixture(autouse=True)
def _torch_as_it_was() -> Iterator[None]:
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(strict)


def blobs(rows: int = 120, features: int = 6, classes: int = 3, seed: int = 0) -> Data:
    """Overlapping clusters, one per class."""
    source = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, features, generator=source)
    targets = torch.randint(classes, (rows,), generator=source)
    inputs = centres[targets] + torch.randn(rows, features, generator=source)
    cuts = [rows // 2, rows // 4, rows - rows // 2 - rows // 4]
    parts = zip(torch.split(inputs, cuts), torch.split(targets, cuts), strict=True)
    return Data(*(Split(*part) for part in parts), class_names=tuple(f"c{number}" for number in range(classes)))


@pytest.fixture
def data() -> Data:
    return blobs()


def network(rate: float = 0.5) -> nn.Module:
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(rate), nn.Linear(16, 3))


@pytest.fixture(scope="session")
def make_training() -> Callable[..., Training]:
    def make(make: Callable[[], nn.Module] = network, seed: int = 42, on: Data | None = None, **training: object) -> Training:
        on, seeds = on or blobs(), derive(seed)
        seed_everything(seeds)
        model = make().to(DEVICE)
        plan = make_plan(model, DropoutSpec(), fast=False)
        spec = TrainingSpec.model_validate({"epochs": 4, "batch_size": 16, **training})
        objective = make_objective(make_task(on, spec.loss), on, spec.loss)
        return Training(model, on, objective, apply_plan(plan, model), spec, seeds)

    return make


@pytest.fixture
def train(make_training: Callable[..., Training]) -> Train:
    """Trains to the end; a fake clock makes each epoch take one second."""

    def run(*how: Any, **training: Any) -> Trained:
        made = make_training(*how, **training)
        ticks = iter(float(second // 2 + second % 2) for second in range(10_000))
        return Trained(made.model, list(made.plan.rows), list(fit(made, lambda: next(ticks))))

    return run
