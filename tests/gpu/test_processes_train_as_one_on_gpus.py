"""Two processes on slices of one GPU come to what one process comes to; and through NCCL the loop is the same as without.

Two processes here share a whole GPU under the name of a slice, and talk as slices do, by gloo. NCCL refuses two processes on one GPU, so
its group has one member: every collective of the loop goes through it.

Tolerance: 1e-4 of a loss after 21 steps. Sums of 16 rows are taken as two of 8, by kernels that add in another order.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from dropout_testing.processes import free_port
from dropout_testing.ranks import Asked, Outcome, outcome

from dropout_api.names import ExitCode, Torchrun
from dropout_api.spec import TrainingJobSpec
from dropout_trainer.train.distributed import World, join
from dropout_trainer.train.loop import fit
from dropout_trainer.train.preparing import prepare, training_on

TOLERANCE = 1e-4
SPEC: dict[str, Any] = {
    "model": {"factory": "dropout_testing.ranks:network"}, "data": {"factory": "dropout_testing.ranks:data"},
    "resourcesPerNode": {"limits": {"cpu": "2", "nvidia.com/mig-1g.10gb": 2}}, "dropout": {"rate": 0.0}, "processesPerNode": 1,
    "training": {"epochs": 3, "batchSize": 16, "gradientAccumulation": 2, "gradientClipNorm": 0.5},
}


def on_slices(spec: dict[str, Any], out: Path) -> Outcome:
    return outcome(Asked(spec, str(out), slices=True))


def test_two_slices_come_to_what_one_gpu_comes_to(tmp_path: Path) -> None:
    one, two = on_slices(SPEC, tmp_path / "one"), on_slices(SPEC | {"processesPerNode": 2}, tmp_path / "two")
    assert (one.code, two.code) == (0, 0), two.log
    assert [step for step, _ in two.curve] == [step for step, _ in one.curve]
    for (_, mine), (_, theirs) in zip(two.curve, one.curve, strict=True):
        assert mine == pytest.approx(theirs, rel=TOLERANCE, abs=TOLERANCE)


@pytest.mark.parametrize("precision", ["Float16", "BFloat16"])
def test_masks_differ_and_a_repetition_does_not(precision: str, tmp_path: Path) -> None:
    spec = SPEC | {"dropout": {"rate": 0.5}, "training": SPEC["training"] | {"precision": precision}, "processesPerNode": 2}
    first, again = on_slices(spec, tmp_path / "first"), on_slices(spec, tmp_path / "again")
    assert (first.code, first.curve, first.weights) == (0, again.curve, again.weights), first.log
    masks = [(tmp_path / "first" / f"mask-{rank}").read_text() for rank in "01"]
    assert masks[0] != masks[1]


def test_more_processes_than_gpus_are_refused_with_the_field(tmp_path: Path) -> None:
    processes = torch.cuda.device_count() + 1
    limits = {"limits": {"cpu": "2", "nvidia.com/gpu": processes}}
    result = outcome(Asked(SPEC | {"processesPerNode": processes, "resourcesPerNode": limits}, str(tmp_path / "more")))
    assert (result.code, result.report["reason"]) == (ExitCode.SPEC_INVALID, "SpecInvalid"), result.log
    assert f"spec.processesPerNode is {processes}, but the pod has {processes - 1} GPUs" in result.report["message"]


class Grouped(World):
    """Of one process that talks to itself."""

    @property
    def alone(self) -> bool:
        return False


@pytest.fixture
def rendezvous(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv(Torchrun.MASTER_ADDR, "127.0.0.1")
    monkeypatch.setenv(Torchrun.MASTER_PORT, str(free_port()))
    yield
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("rendezvous")
@pytest.mark.parametrize("precision", ["Float32", "Float16"])
def test_through_nccl_it_is_the_same_training(precision: str) -> None:
    spec = TrainingJobSpec.model_validate({
        "model": {"factory": "mlp", "args": {"hidden": [16]}}, "data": {"factory": "sklearn", "args": {"name": "wine"}},
        "resourcesPerNode": {"limits": {"cpu": "1", "nvidia.com/gpu": 1}}, "training": SPEC["training"] | {"precision": precision},
    })

    def curve(world: World) -> list[dict[str, float]]:
        ground = prepare(spec, None, world)
        return [result.metrics() for result in fit(training_on(ground, ground.data, spec.seed))]

    alone = curve(World())
    world = join(Grouped(), spec)
    assert torch.distributed.get_backend() == "nccl"
    for mine, theirs in zip(curve(world), alone, strict=True):
        assert mine == pytest.approx(theirs, rel=TOLERANCE, abs=TOLERANCE)
