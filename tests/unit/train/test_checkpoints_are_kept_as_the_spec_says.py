"""How often checkpoints are written, which stay, where they may lie, and that one that cannot be written costs no training."""

import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from dropout_api.names import ExitCode
from dropout_api.training import Checkpoint
from dropout_trainer.errors import StageFailure
from dropout_trainer.train.checkpoints.folder import Folder, LocalFolder, RemoteFolder, folder_at
from dropout_trainer.train.checkpoints.packing import Piece
from dropout_trainer.train.checkpoints.read import Resumption, latest
from dropout_trainer.train.checkpoints.saver import Content, Saver
from dropout_trainer.train.checkpoints.schema import Identity, Journal
from dropout_trainer.train.loop import EpochResult, Training, fit
from dropout_trainer.train.state import State
from dropout_trainer.train.stopping import Snapshot

MINE = Identity(run="a" * 32, spec="b" * 64, data="c" * 64)


def trained(training: Training, folder: Folder, resumed: Resumption | None = None, **rule: Any) -> list[tuple[int, int]]:
    """Trains and saves as the rule says; returns epoch and batch of what was saved."""
    saver, saved = Saver(folder, MINE, Checkpoint(volume_claim="c", **rule), resumed), []
    good: list[Snapshot | None] = [resumed.good if resumed else None]
    last: list[EpochResult | None] = [resumed.journal.last if resumed else None]

    def between_steps(state: State) -> None:
        if saver.due(state.epoch - 1 if state.batch == 0 else None, state.steps):
            saved.append((state.epoch, state.batch))
            saver.save(Content(state.captured(good[0]), good[0], Journal(kept=last[0], last=last[0])))
            saver.wait()

    for result in fit(training, resume_from=resumed.captured if resumed else None, between_steps=between_steps):
        good[0], last[0] = Snapshot.of(training.model, result.epoch), result
    return saved


def numbers(folder: Folder, suffix: str) -> list[int]:
    return sorted(int(name.split(".")[0]) for name in folder.names() if name.endswith(suffix))


@pytest.mark.parametrize(("rule", "expected"), [
    ({}, [(2, 0), (3, 0), (4, 0), (5, 0)]),
    ({"every_epochs": 2}, [(3, 0), (5, 0)]),
    ({"every_epochs": 4, "every_steps": 3}, [(1, 3), (2, 2), (3, 1), (5, 0)]),
])
def test_they_come_after_so_many_epochs_and_steps(
    rule: dict[str, int], expected: list[tuple[int, int]], make_training: Callable[..., Training], tmp_path: Path,
) -> None:
    saved = trained(make_training(), LocalFolder(tmp_path), **rule)  # four epochs of four steps
    assert [at for at in saved if at in expected] == expected


def test_the_latest_stay_and_with_them_the_best_epochs_weights(make_training: Callable[..., Training], tmp_path: Path) -> None:
    folder = LocalFolder(tmp_path)
    training = make_training(epochs=30, optimizer={"learning_rate": 0.3}, early_stopping={"patience": 8})
    saved = trained(training, folder, keep=2)
    last = len(saved)
    assert numbers(folder, "manifest.json") == [last - 1, last]
    found = latest(folder, MINE, lambda _: training)
    assert found is not None
    assert found.captured.best is not None
    assert found.captured.best.epoch == last - 8
    models = {found.manifest.files["best"].name, f"{last - 1:08}.model.safetensors", f"{last:08}.model.safetensors"}  # type: ignore[index]
    assert {name for name in folder.names() if name.endswith("safetensors") and "moving" not in name} == models


def test_what_was_left_behind_goes_but_not_what_is_anothers(make_training: Callable[..., Training], tmp_path: Path) -> None:
    folder, training = LocalFolder(tmp_path), make_training(epochs=1)
    saver = Saver(folder, MINE.model_copy(update={"run": "f" * 32}), Checkpoint(volume_claim="c"))
    for _ in fit(training, between_steps=lambda state: saver.save(Content(state.captured(), None, Journal()))):
        pass
    saver.wait()
    theirs = folder.names()
    for name in ("00000099.model.safetensors", "00000099.state.json.tmp", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    folder = LocalFolder(tmp_path)
    assert latest(folder, MINE, lambda _: training) is None
    trained(make_training(epochs=1), folder)
    assert theirs <= folder.names()
    assert numbers(folder, "manifest.json")[-1] == 100
    assert sorted(name for name in folder.names() - theirs if not name.startswith("00000100")) == ["notes.txt"]


def test_a_number_is_never_given_twice(make_training: Callable[..., Training], tmp_path: Path) -> None:
    folder = LocalFolder(tmp_path)
    trained(make_training(epochs=2), folder)
    (tmp_path / "00000002.model.safetensors").write_bytes(b"torn")
    training = make_training(epochs=2)
    resumed = latest(folder, MINE, lambda _: training)
    assert resumed is not None
    trained(training, folder, resumed)
    assert numbers(folder, "manifest.json") == [1, 3]
    assert not any(name.startswith("00000002") for name in folder.names())


class Slow(LocalFolder):
    """Waits at each manifest until it is let go on."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.go = threading.Semaphore(0)

    def write(self, name: str, content: Iterable[Piece]) -> None:
        if name.endswith("manifest.json"):
            self.go.acquire()
        super().write(name, content)


def test_training_does_not_wait_and_no_two_are_written_at_once(make_training: Callable[..., Training], tmp_path: Path) -> None:
    folder = Slow(tmp_path)
    saver, saved = Saver(folder, MINE, Checkpoint(volume_claim="c", every_steps=1)), list[tuple[int, int]]()

    def between_steps(state: State) -> None:
        if state.epoch == 3 and state.batch == 2 and saver.writing:
            folder.go.release()
            saver.wait()
        if saver.due(state.epoch - 1 if state.batch == 0 else None, state.steps):
            saved.append((state.epoch, state.batch))
            saver.save(Content(state.captured(), None, Journal()))

    assert len(list(fit(make_training(), between_steps=between_steps))) == 4
    assert saved == [(1, 1), (3, 2)]  # what was owed was saved as soon as it could be
    folder.go.release()
    saver.wait()


class Full(LocalFolder):
    def write(self, name: str, content: Iterable[Piece]) -> None:
        if name.startswith("00000002"):
            raise OSError(28, "No space left on device")
        super().write(name, content)


def test_one_that_cannot_be_written_costs_a_warning(
    make_training: Callable[..., Training], tmp_path: Path, caplog: pytest.LogCaptureFixture,
) -> None:
    folder = Full(tmp_path)
    assert len(trained(make_training(), folder)) == 4
    assert numbers(folder, "manifest.json") == [3, 4]
    assert "checkpoint 2 could not be written (OSError: [Errno 28] No space left on device); training goes on" in caplog.text


def test_a_uri_of_fsspecs_is_as_good_as_a_volume(make_training: Callable[..., Training]) -> None:
    folder = folder_at("memory://bucket/jobs/x")
    assert isinstance(folder, RemoteFolder)
    trained(make_training(), folder)
    assert numbers(folder, "manifest.json") == [3, 4]
    training = make_training()
    found = latest(folder_at("memory://bucket/jobs/x"), MINE, lambda _: training)
    assert found is not None
    assert found.captured.position.epoch == 5
    folder.remove("00000004.moving.safetensors")
    folder.remove("00000004.moving.safetensors")
    found = latest(folder, MINE, lambda _: training)
    assert found is not None
    assert found.number == 3


class Away(RemoteFolder):
    def read(self, name: str) -> bytes:
        return self._patiently(self._fail, name)

    def _fail(self) -> bytes:
        raise TimeoutError("no answer")


def test_a_store_that_does_not_answer_ends_the_attempt_rather_than_starting_over(
    make_training: Callable[..., Training], monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dropout_trainer.train.checkpoints.folder.PAUSE", 0.0)
    training = make_training()
    trained(training, folder_at("memory://bucket/jobs/y"))
    with pytest.raises(StageFailure, match=r"00000004.manifest.json of .* cannot be read: TimeoutError: no answer"):
        latest(Away("memory://bucket/jobs/y"), MINE, lambda _: training)


@pytest.mark.parametrize(("uri", "why"), [
    ("/proc/checkpoints", "spec.checkpoint: /proc/checkpoints cannot be written: FileNotFoundError"),
    ("nosuch://bucket", "Protocol not known"),
])
def test_a_place_that_cannot_be_written_is_told_before_training(uri: str, why: str) -> None:
    with pytest.raises(StageFailure, match=why) as end:
        folder_at(uri)
    assert (end.value.reason, end.value.exit_code) == ("CheckpointsUnavailable", ExitCode.CHECKPOINTS_UNAVAILABLE)
