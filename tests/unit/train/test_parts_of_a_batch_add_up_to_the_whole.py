"""Ranks take parts of each batch that together are the batch, and the parts' losses and gradients add up to those of the whole."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from dropout_api.candidate import Task
from dropout_api.metrics import TaskKind
from dropout_api.names import Torchrun
from dropout_api.spec import TrainingJobSpec
from dropout_trainer.errors import StageFailure
from dropout_trainer.train.checkpoints.fitting import problems
from dropout_trainer.train.checkpoints.schema import identity
from dropout_trainer.train.distributed import World, peers_needed
from dropout_trainer.train.loop import Training, batches, fit
from dropout_trainer.train.objective import Objective
from dropout_trainer.train.preparing import prepare
from dropout_trainer.train.state import Captured

CLASSES = Task(outputs=3, class_names=["a", "b", "c"])
WEIGHTS = torch.tensor([0.0, 1.0, 7.0])
OBJECTIVES = {
    "cross-entropy": Objective(CLASSES),
    "weighed and smoothed": Objective(CLASSES, WEIGHTS, 0.1),
    **{name: Objective(Task(kind=TaskKind.REGRESSION, outputs=2, loss=name, deviation=[0.5, 2.0])) for name in ("MSE", "MAE", "Huber")},
    "Quantile": Objective(Task(kind=TaskKind.REGRESSION, outputs=6, loss="Quantile", quantiles=[0.1, 0.5, 0.9], deviation=[0.5, 2.0])),
}


@pytest.mark.parametrize(("rows", "size"), [(16, 2), (5, 2), (17, 4), (6, 3)])
def test_parts_are_the_batch_each_row_once_and_nearly_equal(rows: int, size: int) -> None:
    batch = torch.randperm(rows)
    parts = [World(rank, size).part(batch) for rank in range(size)]
    assert torch.equal(torch.cat(parts), batch)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize(("rows", "size", "ranks", "kept"), [
    (17, 16, 1, [16]), (18, 16, 1, [16, 2]), (19, 16, 2, [16]), (20, 16, 2, [16, 4]), (3, 16, 2, [3]), (3, 1, 1, [1, 1, 1]),
])
def test_a_last_batch_is_left_out_where_it_has_no_two_rows_for_each(rows: int, size: int, ranks: int, kept: list[int]) -> None:
    assert [len(batch) for batch in batches(rows, size, ranks=ranks)] == kept


def answers_and_targets(objective: Objective) -> tuple[Tensor, Tensor]:
    source = torch.Generator().manual_seed(0)
    answers = torch.randn(7, objective.task.outputs, generator=source, dtype=torch.float32, requires_grad=True)
    if objective.task.loss == "CrossEntropy":
        return answers, torch.tensor([0, 0, 1, 2, 2, 1, 0])
    return answers, torch.randn(7, 2, generator=source)


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("sizes", [[4, 3], [2, 2, 3]])  # the first two rows are of a class without weight
def test_losses_and_gradients_add_up(name: str, sizes: list[int]) -> None:
    objective = OBJECTIVES[name]
    answers, targets = answers_and_targets(objective)
    whole = objective(answers, targets)
    [expected] = torch.autograd.grad(whole, answers)
    parts = [objective(*part, targets) for part in zip(answers.split(sizes), targets.split(sizes), strict=True)]
    torch.testing.assert_close(torch.stack(parts).sum(), whole, rtol=1e-6, atol=1e-6)
    [found] = torch.autograd.grad(torch.stack(parts).sum(), answers)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


def test_a_world_is_what_torchrun_says() -> None:
    environ = {Torchrun.RANK: "5", Torchrun.WORLD_SIZE: "8", Torchrun.LOCAL_RANK: "1", Torchrun.LOCAL_WORLD_SIZE: "4"}
    assert World.of({name.value: value for name, value in environ.items()}) == World(5, 8, 1, 4)
    assert World.of({}).alone


def test_alone_nothing_is_asked_of_anybody() -> None:
    world = World()
    assert world.broadcast(3) == 3
    assert world.gather(3) == [3]
    assert world.largest(2, 0) == [2, 0]
    model = torch.nn.Linear(1, 1)
    assert world.parallel(model) is model
    world.leave()
    assert not torch.distributed.is_initialized()


@pytest.mark.parametrize(("text", "reason"), [
    ("[third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer [10.0.0.2]:4711", "PeerLost"),
    ("mat1 and mat2 shapes cannot be multiplied", None),
])
def test_only_a_peers_end_is_called_one(text: str, reason: str | None) -> None:
    with pytest.raises((StageFailure, RuntimeError)) as caught, peers_needed():
        raise RuntimeError(text)
    assert getattr(caught.value, "reason", None) == reason


def spec(**training: Any) -> TrainingJobSpec:
    return TrainingJobSpec.model_validate({
        "model": {"factory": "mlp"}, "data": {"factory": "sklearn", "args": {"name": "wine"}}, "training": {"epochs": 1, **training},
    })


@pytest.mark.parametrize(("training", "message"), [
    ({"batchSize": 7}, r"spec\.training\.batchSize: 7 rows are too few for 4 processes; use 8 or more"),
    ({"compile": True}, r"spec\.training\.compile does not go with 4 processes"),
])
def test_what_does_not_go_with_several_processes_is_refused(training: dict[str, Any], message: str) -> None:
    with pytest.raises(StageFailure, match=message):
        prepare(spec(**training), world=World(1, 4))


class Differing(World):
    """Rank 1 has other data."""

    def gather(self, value: Any) -> list[Any]:
        return [value, "other"]


def test_ranks_with_other_data_are_refused() -> None:
    with pytest.raises(StageFailure, match=r"spec\.data\.factory: rank 1 has other data than rank 0"):
        Differing(0, 2).require_same("a", "spec.data.factory")


def test_a_checkpoint_is_of_as_many_processes_as_made_it(make_training: Callable[..., Training]) -> None:
    captured = list[Captured]()
    for _ in fit(make_training(epochs=1), between_steps=lambda state: captured.append(state.captured(others=[state.streams()]))):
        pass
    assert list(problems(captured[0], make_training(epochs=1))) == ["state: is of 2 processes, but here are 1"]
    one, two = spec(), spec().model_copy(update={"processes_per_node": 2})
    assert identity("a" * 32, one, "b" * 64) != identity("a" * 32, two, "b" * 64)
