"""Built-in data sets: real rows, each in one split, standardised by the training rows alone, split by the seed alone."""

import gzip
import struct
from pathlib import Path

import pytest
import torch

from dropout_api.builtins.data import FashionMnistArguments, SklearnArguments
from dropout_api.names import ExitCode
from dropout_trainer.data import problems
from dropout_trainer.errors import StageFailure
from dropout_trainer.readers import bundled
from dropout_trainer.readers.bundled import sklearn
from dropout_trainer.readers.fashion_mnist import fashion_mnist


@pytest.mark.parametrize(("name", "shape", "rows", "classes"), [
    ("digits", (1, 8, 8), 1797, 10), ("breast_cancer", (30,), 569, 2), ("wine", (13,), 178, 3),
])
def test_sklearns_sets(name: str, shape: tuple[int, ...], rows: int, classes: int) -> None:
    data = sklearn(SklearnArguments.model_validate({"name": name}), seed=1)
    assert not problems(data)
    assert data.input_shape == shape
    assert data.num_classes == classes
    assert sum(map(len, data.splits.values())) == rows
    assert len(data.val) == len(data.test) == round(rows * 0.15)
    again, other = (sklearn(SklearnArguments.model_validate({"name": name}), seed) for seed in (1, 2))
    assert torch.equal(again.train.inputs, data.train.inputs)
    assert not torch.equal(other.train.targets, data.train.targets)


def test_tables_are_standardised_with_the_training_rows_alone() -> None:
    data = sklearn(SklearnArguments(name="wine"), seed=1)
    assert torch.allclose(data.train.inputs.mean(0), torch.zeros(13), atol=1e-5)
    assert torch.allclose(data.train.inputs.std(0), torch.ones(13), atol=1e-5)
    assert not torch.allclose(data.test.inputs.mean(0), torch.zeros(13), atol=1e-2)


@pytest.mark.parametrize("name", ["digits", "breast_cancer", "wine"])
def test_the_rows_are_those_of_scikit_learn_each_in_one_split(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import sklearn.datasets as theirs_all

    monkeypatch.setattr(bundled, "standardised", lambda *splits: splits)
    theirs = getattr(theirs_all, f"load_{name}")()
    data = sklearn(SklearnArguments.model_validate({"name": name}), seed=3)
    parts = data.splits.values()
    ours = torch.cat([torch.cat([split.inputs.flatten(1) * (16 if name == "digits" else 1), split.targets[:, None]], 1) for split in parts])
    wanted = torch.cat([torch.tensor(theirs.data), torch.tensor(theirs.target)[:, None]], 1).float()
    assert sorted(ours.tolist()) == sorted(wanted.tolist())
    assert data.class_names == tuple(map(str, theirs.target_names))


def idx(path: Path, sizes: tuple[int, ...], values: bytes) -> None:
    content = struct.pack(f">HBB{len(sizes)}I", 0, 8, len(sizes), *sizes) + values
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for prefix, rows, suffix in (("train", 200, ".gz"), ("t10k", 20, "")):
        idx(tmp_path / f"{prefix}-images-idx3-ubyte{suffix}", (rows, 28, 28), bytes(value % 256 for value in range(rows)) * 784)
        idx(tmp_path / f"{prefix}-labels-idx1-ubyte{suffix}", (rows,), bytes(value % 10 for value in range(rows)))
    return tmp_path


def test_fashion_mnist_reads_idx_files_gzipped_or_not(folder: Path) -> None:
    data = fashion_mnist(FashionMnistArguments(path=str(folder), limit=100), seed=1)
    assert not problems(data)
    assert [len(split) for split in data.splits.values()] == [85, 15, 20]
    assert data.input_shape == (1, 28, 28)
    assert (float(data.test.inputs.min()), float(data.test.inputs.max())) == (0.0, pytest.approx(19 / 255))
    assert data.test.targets.tolist() == [value % 10 for value in range(20)]


@pytest.mark.parametrize("content", [b"", b"\0\0\x0d\3" + bytes(12), b"\0\0\x08\1\0\0\0\7abc"])
def test_a_damaged_file_is_named(folder: Path, content: bytes) -> None:
    (folder / "t10k-labels-idx1-ubyte").write_bytes(content)
    with pytest.raises(StageFailure, match=r"spec.data.args.path: .*t10k-labels-idx1-ubyte cannot be read") as end:
        fashion_mnist(FashionMnistArguments(path=str(folder)), seed=1)
    assert end.value.exit_code == ExitCode.DATA_INVALID
