"""A plain loop that goes on from a checkpoint comes to the weights of one that was never cut off, to the bit: parameters, batch norms,
moments, learning rates, dropout masks, the order of batches. A checkpoint that is not whole, or of another program, is refused."""

import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from dropout_testing.own_loops import MakeJob, network
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from dropout_trainer.errors import StageFailure
from dropout_trainer.loop.job import Job
from dropout_trainer.train.ending import Preempted, Terminated

EPOCHS = 5
PLAN = {"layers": [
    {"match": "3", "rate": 0.6, "schedule": {"kind": "Linear"}}, {"match": "0", "kind": "DropConnect", "action": "Wrap", "rate": 0.2},
]}
SPEC: dict[str, Any] = {"training": {"epochs": EPOCHS}, "dropout": PLAN}


class Cut(BaseException):
    """The process is gone."""


def train(job: Job, until: int = EPOCHS, width: int = 16) -> dict[str, Tensor]:
    """The weights at the end."""
    torch.manual_seed(3)
    inputs = torch.randn(48, 6)
    model, own = network(), torch.Generator().manual_seed(5)
    model = model if width == 16 else nn.Sequential(nn.Linear(6, width), *list(model)[1:])
    job.apply(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.02, total_steps=EPOCHS)
    batches = DataLoader(TensorDataset(inputs, inputs.sum(1).gt(0).long()), batch_size=8, shuffle=True)
    for epoch in range(job.resume(model, optimizer, scheduler, own) + 1, EPOCHS + 1):
        for rows, targets in batches:
            loss = nn.functional.cross_entropy(model(rows + torch.randn(rows.shape, generator=own)), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        scheduler.step()
        job.log(epoch, train_loss=loss.item(), val_loss=0.5)
        job.save(epoch)
        if job.keeper:  # or the next may find it still being written, and wait for the one after
            job.keeper.wait()
        if epoch == until:
            raise Cut
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.fixture
def uncut(make_job: MakeJob) -> dict[str, Tensor]:
    return train(make_job(**SPEC), until=EPOCHS + 1)


@pytest.mark.parametrize("cut_at", range(1, EPOCHS + 1))
def test_to_the_bit(make_job: MakeJob, uncut: dict[str, Tensor], cut_at: int) -> None:
    with pytest.raises(Cut):
        train(make_job(keeps=True, **SPEC), until=cut_at)
    torch.manual_seed(99)
    weights = train(make_job(keeps=True, attempt=2, **SPEC), until=EPOCHS + 1)
    assert weights.keys() == uncut.keys()
    assert all(torch.equal(weights[name], uncut[name]) for name in uncut)


def test_a_torn_checkpoint_is_passed_over(
    make_job: MakeJob, uncut: dict[str, Tensor], tmp_path: Path, caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(Cut):
        train(make_job(keeps=True, **SPEC), until=3)
    torn = tmp_path / "checkpoints/00000003.moving.safetensors"
    torn.write_bytes(torn.read_bytes()[:-1])
    caplog.set_level("INFO")
    weights = train(make_job(keeps=True, attempt=2, **SPEC), until=EPOCHS + 1)
    assert "checkpoint 3 is refused: 00000003.moving.safetensors has" in caplog.text
    assert "goes on from checkpoint 2: epoch 3" in caplog.text
    assert all(torch.equal(weights[name], uncut[name]) for name in uncut)


@pytest.mark.parametrize(("change", "words"), [
    ({"seed": 7}, "it is of another spec"), ({"command": ["python", "other.py"]}, "it is of another spec"),
    ({"width": 24}, "Sequential: weights: "),
])
def test_another_trainings_checkpoint_is_refused(
    make_job: MakeJob, change: dict[str, Any], words: str, caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(Cut):
        train(make_job(keeps=True, **SPEC), until=2)
    width = change.pop("width", 16)
    job = make_job(keeps=True, attempt=2, **SPEC | change)
    if width != 16:
        model = nn.Sequential(nn.Linear(6, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(0.5), nn.Linear(width, 3))
        optimizer = torch.optim.AdamW(model.parameters())
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.02, total_steps=EPOCHS)
        assert job.resume(model, optimizer, scheduler, torch.Generator()) == 0
    else:
        train(job, until=EPOCHS + 1)
    assert words in caplog.text
    assert "none of 2 checkpoints can be used" in caplog.text


def test_other_parts_are_refused_by_their_names(make_job: MakeJob, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(Cut):
        train(make_job(keeps=True, **SPEC), until=1)
    assert make_job(keeps=True, **SPEC).resume(network()) == 0
    assert "it is of Sequential, AdamW, OneCycleLR, Generator, but the program hands over Sequential" in caplog.text


def test_a_signal_saves_and_ends_as_preempted(make_job: MakeJob, uncut: dict[str, Tensor]) -> None:
    with pytest.raises(Preempted, match="after epoch 1 of 5"):
        train(make_job(keeps=True, stopped=signal.SIGTERM, checkpoint={"volumeClaim": "c", "everyEpochs": 4}, **SPEC))
    weights = train(make_job(keeps=True, attempt=2, **SPEC), until=EPOCHS + 1)
    assert all(torch.equal(weights[name], uncut[name]) for name in uncut)


def test_a_signal_without_checkpoints_is_an_end_by_signal(make_job: MakeJob) -> None:
    with pytest.raises(Terminated) as end:
        train(make_job(stopped=signal.SIGTERM, **SPEC))
    assert not isinstance(end.value, Preempted)


def test_other_ranks_load_what_rank_0_has_saved_and_write_nothing(make_job: MakeJob, tmp_path: Path) -> None:
    with pytest.raises(Cut):
        train(make_job(keeps=True, **SPEC), until=2)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "checkpoints").iterdir()}
    job = make_job(rank=1, keeps=True, **SPEC)
    with pytest.raises(Cut):
        train(job, until=4)
    assert job.epoch == 4
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "checkpoints").iterdir()} == before


def test_a_folder_that_cannot_be_written_is_told_before_the_loop(make_job: MakeJob, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "checkpoints", ignore_errors=True)
    (tmp_path / "checkpoints").write_text("a file")
    with pytest.raises(StageFailure, match=r"spec\.checkpoint"):
        make_job(keeps=True, **SPEC).resume(network())


def test_a_part_without_a_state_is_one_line(make_job: MakeJob) -> None:
    with pytest.raises(StageFailure, match=r"job\.resume takes models, optimisers, .* not a int"):
        make_job(keeps=True, **SPEC).resume(network(), 3)  # type: ignore[arg-type]
