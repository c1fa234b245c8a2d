"""A torn, truncated, foreign or hostile checkpoint is refused, the log says why, and the one before it is used. Nothing in it runs."""

import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import nn

from dropout_api.training import Checkpoint
from dropout_trainer.train.checkpoints.folder import LocalFolder, Refused
from dropout_trainer.train.checkpoints.read import Resumption, latest
from dropout_trainer.train.checkpoints.saver import Content, Saver
from dropout_trainer.train.checkpoints.schema import Identity, Journal
from dropout_trainer.train.loop import EpochResult, Training, fit
from dropout_trainer.train.state import State
from dropout_trainer.train.stopping import Snapshot

MINE = Identity(run="a" * 32, spec="b" * 64, data="c" * 64)
RULE = Checkpoint(volume_claim="c", keep=3)
Change = Callable[[Path], None]


@pytest.fixture(scope="module")
def training(make_training: Any) -> Training:
    made: Training = make_training(epochs=4, early_stopping={"patience": 4})
    return made


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, training: Training) -> Path:
    """Checkpoints 1, 2 and 3, after as many epochs."""
    place, last = tmp_path_factory.mktemp("written"), list[EpochResult]()
    saver = Saver(LocalFolder(place), MINE, RULE)

    def between_steps(state: State) -> None:
        if state.batch == 0:
            good = Snapshot.of(training.model, state.epoch - 1)
            saver.save(Content(state.captured(good), good, Journal(kept=last[-1], last=last[-1])))
            saver.wait()

    for result in fit(training, between_steps=between_steps):
        last.append(result)
        if result.epoch == 4:
            break
    assert saver.saved == 3
    return place


@pytest.fixture
def folder(tmp_path: Path, written: Path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(written, tmp_path / "checkpoints"))


def newest(folder: Path, training: Training, mine: Identity = MINE) -> Resumption | None:
    def training_after(ended: int) -> Training:
        if ended:
            raise Refused(f"{ended} trainings have ended")
        return training

    return latest(LocalFolder(folder), mine, training_after)


def resealed(folder: Path, part: str, content: bytes) -> None:
    """A file of checkpoint 3 by somebody who knows how manifests are made."""
    manifest = folder / "00000003.manifest.json"
    told = json.loads(manifest.read_text())
    name = f"00000003.{part}." + ("json" if part == "state" else "safetensors")
    (folder / name).write_bytes(content)
    sealed = {"name": name, "sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    told["files"] = {part: sealed if file["name"] == name else file for part, file in told["files"].items()}  # the best may be the last
    manifest.write_text(json.dumps(told))


def journal_with(**changes: Any) -> Change:
    return state_with("journal", **changes)


def state_with(part: str = "position", **changes: Any) -> Change:
    def change(folder: Path) -> None:
        told = json.loads((folder / "00000003.state.json").read_text())
        told[part] |= {name: value(told[part]) if callable(value) else value for name, value in changes.items()}
        resealed(folder, "state", json.dumps(told).encode())

    return change


def tensors_with(part: str, edit: Callable[[dict[str, torch.Tensor]], object]) -> Change:
    def change(folder: Path) -> None:
        tensors = load((folder / f"00000003.{part}.safetensors").read_bytes())
        edit(tensors)
        resealed(folder, part, save(tensors))

    return change


def cut(name: str, to: int | None = None) -> Change:
    def change(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2 if to is None else to])

    return change


def flip(name: str) -> Change:
    def change(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[len(content) // 2] ^= 1
        (folder / name).write_bytes(bytes(content))

    return change


def manifest_with(edit: Callable[[dict[str, Any]], object]) -> Change:
    def change(folder: Path) -> None:
        path = folder / "00000003.manifest.json"
        told = json.loads(path.read_text())
        edit(told)
        path.write_text(json.dumps(told))

    return change


def replaced(name: str, by: Callable[[Path], object]) -> Change:
    def change(folder: Path) -> None:
        (folder / name).unlink()
        by(folder / name)

    return change


class Payload:
    def __reduce__(self) -> Any:
        return (os.mkdir, ("ran",))


def pickled(folder: Path) -> None:
    resealed(folder, "model", pickle.dumps({"0.weight": Payload()}))


def streams(**changes: Any) -> Change:
    return state_with(streams=lambda position: position["streams"] | changes)


BROKEN: dict[str, tuple[Change, str]] = {
    "a manifest cut off": (cut("00000003.manifest.json"), "00000003.manifest.json: Invalid JSON"),
    "an empty manifest": (cut("00000003.manifest.json", 0), "Invalid JSON"),
    "weights cut off": (cut("00000003.model.safetensors"), "00000003.model.safetensors has"),
    "an optimiser's state cut off": (cut("00000003.moving.safetensors"), "bytes, not"),
    "numbers cut off": (cut("00000003.state.json"), "00000003.state.json has"),
    "a bit of the weights": (flip("00000003.model.safetensors"), "00000003.model.safetensors is not what its manifest says"),
    "a bit of the numbers": (flip("00000003.state.json"), "SHA-256 differs"),
    "a file that is gone": (replaced("00000003.moving.safetensors", lambda path: None), "No such file"),
    "a pipe": (replaced("00000003.model.safetensors", os.mkfifo), "is no file"),
    "a link": (replaced("00000003.model.safetensors", lambda path: path.symlink_to("/etc/passwd")), "is no file"),
    "a folder": (replaced("00000003.state.json", Path.mkdir), "is no file"),
    "another run's": (manifest_with(lambda told: told["identity"].update(run="d" * 32)), "it is of another run (dddddddddddd, not aaaa"),
    "another spec's": (manifest_with(lambda told: told["identity"].update(spec="d" * 64)), "of another spec"),
    "of other data": (manifest_with(lambda told: told["identity"].update(data="d" * 64)), "of another data"),
    "of another release": (manifest_with(lambda told: told.update(version=2)), "manifest.json.version"),
    "with a field that we do not know": (manifest_with(lambda told: told.update(code="x")), "manifest.json.code"),
    "that leads out of the folder": (
        manifest_with(lambda told: told["files"]["model"].update(name="../../etc/passwd")), "files.model.name: String should match"),
    "without weights": (manifest_with(lambda told: told["files"].pop("model")), "names no model"),
    "without the best epoch": (manifest_with(lambda told: told["files"].pop("best")), "best: the manifest and the state disagree"),
    "a huge manifest": (lambda folder: (folder / "00000003.manifest.json").write_bytes(b" " * (1 << 17)) and None, "more than the"),
    "a pickle": (pickled, "00000003.model.safetensors is no safetensors file"),
    "JSON that nests": (lambda folder: resealed(folder, "state", b"[" * 100_000), "Invalid JSON"),
    "weights of another model": (tensors_with("model", lambda found: found.pop("0.weight")), "model: of another model (0.weight)"),
    "weights of another shape": (
        tensors_with("model", lambda found: found.update({"0.bias": torch.zeros(3)})), "0.bias is [3] of float32, but the model's is [16]"),
    "weights of another type": (
        tensors_with("model", lambda found: found.update({"0.bias": torch.zeros(16, dtype=torch.int32)})), "0.bias is [16] of int32"),
    "moments of another shape": (
        tensors_with("moving", lambda found: found.update({"exp_avg:0.bias": torch.zeros(3)})), "moving: exp_avg:0.bias is [3]"),
    "moments of nothing": (tensors_with("moving", lambda found: found.update({"exp_avg:9.bias": torch.zeros(3)})), "do not have"),
    "moments that are missing": (tensors_with("moving", lambda found: found.pop("exp_avg:0.bias")), "moving: is incomplete"),
    "an attribute instead of a moment": (
        tensors_with("moving", lambda found: found.update({"__class__:0.bias": torch.zeros(16)})), "do not have"),
    "too many epochs": (state_with(epoch=9), "state: epoch 9, batch 0 after 12 steps is no place in this training"),
    "too many batches": (state_with(batch=99), "is no place in this training"),
    "a loss that is not finite": (state_with(losses={"loss": float("inf"), "rows": 1, "batches": 1}), "state.json.position.losses.loss"),
    "a scaler that was never asked for": (state_with(scaler={"scale": 1.0}), "precision and early stopping"),
    "without results": (journal_with(kept=None), "the results of epoch 3 are missing"),
    "an endless epoch": (journal_with(last=lambda told: told["last"] | {"seconds": "Infinity"}), "seconds: inf is no time"),
    "more trials than the job has": (journal_with(ended=[{"val_loss": 1.0}]), "1 trainings have ended"),
    "a stream that is too short": (streams(order="AAAA"), "a random stream cannot be restored"),
    "a stream that points outside": (streams(numpyAt=10_000), "numpyAt"),
    "more GPUs": (state_with(streams=lambda at: at["streams"] | {"torch": at["streams"]["torch"] * 2}), "was saved with 1 GPUs"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_the_one_before_it_is_used(
    what: str, folder: Path, training: Training, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(folder.parent)
    change, why = BROKEN[what]
    change(folder)
    found = newest(folder, training)
    assert found is not None
    assert (found.number, found.captured.position.epoch) == (2, 3)
    [line] = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert line.startswith("checkpoint 3 is refused: ")
    assert why in line
    assert not (folder.parent / "ran").exists()


def test_what_is_whole_is_used(folder: Path, training: Training, caplog: pytest.LogCaptureFixture) -> None:
    found = newest(folder, training)
    assert found is not None
    assert (found.number, str(found)) == (3, "checkpoint 3: epoch 4, batch 0")
    assert not caplog.records


def test_files_without_a_manifest_are_no_checkpoint(folder: Path, training: Training, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "00000003.manifest.json").unlink()
    found = newest(folder, training)
    assert found is not None
    assert found.number == 2
    assert not caplog.records


def test_when_none_can_be_used_training_starts_and_says_so(folder: Path, training: Training, caplog: pytest.LogCaptureFixture) -> None:
    assert newest(folder, training, MINE.model_copy(update={"spec": "d" * 64})) is None
    assert "none of 3 checkpoints can be used; training starts from its first epoch" in caplog.text


def test_another_model_takes_none(folder: Path, training: Training, caplog: pytest.LogCaptureFixture) -> None:
    wider = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Dropout(), nn.Linear(32, 3))
    assert newest(folder, replace(training, model=wider)) is None
    assert "0.weight is [16, 6] of float32, but the model's is [32, 6] of float32" in caplog.text
