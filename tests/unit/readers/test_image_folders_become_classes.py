"""Pictures become tensors of one size, their folders classes, and folders train, val and test splits."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from dropout_trainer.data import Data
from dropout_trainer.errors import StageFailure

Read = Callable[..., Data]
Refusal = Callable[..., StageFailure]
COLOURS = {"blue": (0, 0, 255), "red": (255, 0, 0)}


def paint(folder: Path, rows: int = 10, size: tuple[int, int] = (6, 4), suffix: str = ".png") -> Path:
    """`size` is width and height, as Pillow has it."""
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for row in range(rows):
            Image.new("RGB", size, colour).save(folder / name / f"{row}{suffix}")
    return folder


def test_each_folder_is_a_class_and_pictures_are_scaled(read: Read, tmp_path: Path) -> None:
    data = read("images", uri=str(paint(tmp_path)), size=[8, 12])
    assert data.class_names == ("blue", "red")
    assert data.input_shape == (3, 8, 12)
    assert [torch.bincount(split.targets).tolist() for split in data.splits.values()] == [[6, 6], [2, 2], [2, 2]]
    red = data.train.inputs[data.train.targets == 1]
    assert torch.equal(red.amax((0, 2, 3)), torch.tensor([1.0, 0, 0]))


def test_grey_pictures_have_one_channel(read: Read, tmp_path: Path) -> None:
    data = read("images", uri=str(paint(tmp_path, suffix=".jpg")), channels=1)
    assert data.input_shape == (1, 32, 32)
    assert 0.1 < float(data.train.inputs[data.train.targets == 0].mean()) < 0.15  # of blue little is bright (ITU-R 601-2)


def test_given_splits_stay_and_what_is_missing_is_cut_from_train(read: Read, tmp_path: Path) -> None:
    paint(tmp_path / "train", 20)
    paint(tmp_path / "test", 3)
    data = read("images", uri=str(tmp_path), size=[4, 6], val_fraction=0.2)
    assert [len(split) for split in data.splits.values()] == [32, 8, 6]
    paint(tmp_path / "val", 5)
    assert [len(split) for split in read("images", uri=str(tmp_path), size=[4, 6]).splits.values()] == [40, 10, 6]


def test_rows_and_columns_are_not_swapped(read: Read, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for row in range(10):
            picture = Image.new("L", (3, 2))
            picture.putpixel((2, 0), 255)
            picture.save(tmp_path / name / f"{row}.png")
    data = read("images", uri=str(tmp_path), size=[2, 3], channels=1)
    assert data.train.inputs[0, 0].tolist() == [[0, 0, 1], [0, 0, 0]]


def test_a_camera_that_was_turned_is_allowed_for(read: Read, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for row in range(10):
            picture = Image.new("L", (8, 8))
            picture.paste(255, (0, 0, 8, 4))
            exif = Image.Exif()
            exif[0x0112] = 3  # upside down
            picture.save(tmp_path / name / f"{row}.png", exif=exif)
    top = read("images", uri=str(tmp_path), size=[8, 8], channels=1).train.inputs[0, 0, :4]
    assert float(top.max()) == 0


def test_hidden_and_other_files_are_passed_over(read: Read, tmp_path: Path) -> None:
    paint(tmp_path)
    (tmp_path / "blue" / "notes.txt").write_text("not a picture")
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "0.png").write_bytes(b"")
    assert sum(map(len, read("images", uri=str(tmp_path)).splits.values())) == 20


def test_a_broken_picture_is_named(refusal: Refusal, tmp_path: Path) -> None:
    paint(tmp_path)
    content = (tmp_path / "red" / "3.png").read_bytes()
    for broken in (b"", b"no picture", content[: len(content) // 2]):
        (tmp_path / "red" / "3.png").write_bytes(broken)
        says = refusal("images", uri=str(tmp_path)).message
        assert f"uri: {tmp_path}/red/3.png cannot be read as a picture (" in says


def test_a_picture_of_a_size_that_none_has_is_refused_before_it_is_unpacked(
        refusal: Refusal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paint(tmp_path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    assert "blue/0.png cannot be read as a picture (Image size (24 pixels) exceeds limit" in refusal("images", uri=str(tmp_path)).message


@pytest.mark.parametrize(("folder", "says"), [
    ("empty", "holds no pictures (.png, .jpg"), ("flat", "holds no pictures (.png, .jpg"), ("one", "holds one class alone, 'blue'"),
    ("nowhere", "there is no folder "), ("heldout", "holds no pictures"),
])
def test_a_folder_without_classes(folder: str, says: str, refusal: Refusal, tmp_path: Path) -> None:
    for name in ("empty", "flat", "one/blue"):
        (tmp_path / name).mkdir(parents=True)
    paint(tmp_path / "heldout" / "train" / "x", 0)
    for row in range(10):
        Image.new("RGB", (2, 2)).save(tmp_path / "flat" / f"{row}.png")
        Image.new("RGB", (2, 2)).save(tmp_path / "one" / "blue" / f"{row}.png")
    assert says in refusal("images", uri=str(tmp_path / folder)).message
