"""A set of Hugging Face datasets becomes a `Data`; without the package one line says what to install."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dropout_api.names import ExitCode
from dropout_trainer.data import Data
from dropout_trainer.errors import StageFailure
from dropout_trainer.readers import hugging_face

Read = Callable[..., Data]
Refusal = Callable[..., StageFailure]


def test_without_the_package(refusal: Refusal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hugging_face, "find_spec", lambda name: None if name == "datasets" else importlib.util.find_spec(name))
    end = refusal("hugging_face", path="anything", inputs="x", target="y")
    assert "'hugging_face' needs the package datasets; derive an image for spec.image" in end.message
    assert end.exit_code == ExitCode.DATA_MISSING


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({
        "x": datasets.List(datasets.Value("float32")), "ids": datasets.List(datasets.Value("int64")),
        "y": datasets.ClassLabel(names=["no", "yes"]),
        "word": datasets.Value("string"), "price": datasets.Value("float64"), "ragged": datasets.List(datasets.Value("int64")),
    })

    def rows(start: int, count: int) -> object:
        return datasets.Dataset.from_list([
            {"x": [float(row), 1.0], "ids": [row, 2], "y": row % 2, "word": "ba"[row % 2], "price": row / 2, "ragged": [1] * (1 + row % 2)}
            for row in range(start, start + count)
        ], features=features)

    datasets.DatasetDict({"train": rows(0, 40), "test": rows(100, 6)}).save_to_disk(tmp_path / "set")
    rows(0, 20).save_to_disk(tmp_path / "single")  # type: ignore[attr-defined]
    return tmp_path


def test_splits_of_the_set_are_taken_and_the_rest_is_cut(folder: Path, read: Read) -> None:
    data = read("hugging_face", path=str(folder / "set"), inputs="x", target="y")
    assert [len(split) for split in data.splits.values()] == [34, 6, 6]
    assert sorted(data.test.inputs[:, 0].tolist()) == list(range(100, 106))
    assert data.class_names == ("no", "yes")
    assert data.scaling is not None
    assert [len(split) for split in read("hugging_face", path=str(folder / "single"), inputs="x", target="y").splits.values()] == [12, 4, 4]


def test_columns_become_tokens_classes_and_values(folder: Path, read: Read) -> None:
    data = read("hugging_face", path=str(folder / "set"), inputs="ids", target="word")
    assert (data.train.inputs.dtype, data.class_names) == (torch.int64, ("a", "b"))
    values = read("hugging_face", path=str(folder / "set"), inputs="x", target="price")
    assert torch.equal(values.train.targets, values.train.inputs[:, :1] / 2)


@pytest.mark.parametrize(("args", "says"), [
    ({"inputs": "z", "target": "y"}, "inputs: there is no column 'z' in "),
    ({"inputs": "x", "target": "z"}, "target: there is no column 'z' in "),
    ({"inputs": "ragged", "target": "y"}, "inputs: rows of 'ragged' differ in shape; pad or cut them to one length"),
    ({"inputs": "x", "target": "y", "split": "all"}, "split: there is no split 'all' in "),
    ({"inputs": "word", "target": "y"}, "inputs: 'word' is <U1; floats, or integers"),
])
def test_columns_that_do_not_fit(args: dict[str, str], says: str, folder: Path, refusal: Refusal) -> None:
    assert f"spec.data.args.{says}" in refusal("hugging_face", path=str(folder / "set"), **args).message


def test_a_set_that_is_not_there(folder: Path, refusal: Refusal) -> None:
    end = refusal("hugging_face", path=str(folder / "nowhere"), inputs="x", target="y")
    assert "is no folder of save_to_disk and cannot be loaded by name" in end.message
    assert end.exit_code == ExitCode.DATA_MISSING
