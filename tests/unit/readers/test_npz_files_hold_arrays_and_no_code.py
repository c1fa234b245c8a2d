"""Arrays become inputs and targets by their dtype and shape; a pickle is refused and never runs."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dropout_trainer.data import Data
from dropout_trainer.errors import StageFailure

Read = Callable[..., Data]
Refusal = Callable[..., StageFailure]
CLASSES = np.arange(40) % 2
FLOATS = np.linspace(0, 1, 80).reshape(40, 2)


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., str]:
    def run(**arrays: Any) -> str:
        np.savez(tmp_path / "arrays.npz", **arrays)
        return str(tmp_path / "arrays.npz")

    return run


@pytest.mark.parametrize(("inputs", "shape", "dtype", "scaled"), [
    (FLOATS, (2,), torch.float32, True),
    (FLOATS[:, 0], (1,), torch.float32, True),
    (np.zeros((40, 5, 3), np.float32), (5, 3), torch.float32, True),
    (np.zeros((40, 3, 4, 4), np.float32), (3, 4, 4), torch.float32, False),
    (np.full((40, 1, 4, 4), 255, np.uint8), (1, 4, 4), torch.float32, False),
    (np.ones((40, 6), np.int32), (6,), torch.int64, False),
])
def test_inputs_follow_from_dtype_and_shape(
        inputs: Any, shape: tuple[int, ...], dtype: torch.dtype, scaled: bool, read: Read, save: Callable[..., str]) -> None:
    data = read("npz", uri=save(inputs=inputs, targets=CLASSES))
    assert data.input_shape == shape
    assert data.train.inputs.dtype == dtype
    assert (data.scaling is not None) == scaled
    assert float(data.train.inputs.max()) <= 1


@pytest.mark.parametrize(("targets", "shape", "names"), [
    (CLASSES, (), ("0", "1")), (CLASSES.astype(bool), (), ("0", "1")), (CLASSES * 5 + 2, (), ("2", "7")),
    (np.array(["no", "yes"])[CLASSES], (), ("no", "yes")), (FLOATS[:, 0], (1,), ()), (FLOATS.astype(np.float16), (2,), ()),
])
def test_targets_are_classes_or_values(targets: Any, shape: tuple[int, ...], names: tuple[str, ...], read: Read, save: Any) -> None:
    data = read("npz", uri=save(inputs=FLOATS, targets=targets))
    assert (tuple(data.train.targets.shape[1:]), data.class_names) == (shape, names)


def test_rows_stay_together_with_their_targets_and_segments(read: Read, save: Any) -> None:
    rows = np.arange(40)
    data = read("npz", uri=save(x=rows[:, None].astype(float), y=rows / 2, s=rows % 3), inputs="x", targets="y", segment="s")
    for split in data.splits.values():
        assert torch.equal(split.targets, split.inputs / 2)
        assert split.segments is not None
        assert split.segments.tolist() == [int(row) % 3 for row in split.inputs.flatten()]
    assert data.segment_names == ("0", "1", "2")


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_a_pickle_is_refused_and_does_not_run(tmp_path: Path, save: Any, refusal: Refusal) -> None:
    uri = save(inputs=np.array([Bomb(tmp_path / "ran")] * 40, dtype=object), targets=CLASSES)
    says = refusal("npz", uri=uri).message
    assert f"uri: array 'inputs' of {uri} holds Python objects, which could run code" in says
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(("arrays", "args", "says"), [
    ({"inputs": FLOATS, "targets": CLASSES}, {"inputs": "x"}, "inputs: there is no array 'x' in "),
    ({"inputs": FLOATS, "targets": CLASSES}, {"segment": "s"}, "segment: there is no array 's' in "),
    ({"inputs": FLOATS, "targets": CLASSES[:30]}, {}, "targets: 'targets' has 30 rows, but 'inputs' has 40"),
    ({"inputs": FLOATS, "targets": CLASSES, "s": FLOATS}, {"segment": "s"}, "segment: must be [40], one for each row, not [40, 2]"),
    ({"inputs": FLOATS.astype(complex), "targets": CLASSES}, {}, "inputs: 'inputs' is complex128; floats, or integers"),
    ({"inputs": np.float32(1), "targets": CLASSES}, {}, "inputs: 'inputs' is a single value"),
    ({"inputs": -np.ones((40, 2), int), "targets": CLASSES}, {}, "'inputs' holds integers, which are token numbers from 0, but has -1"),
    ({"inputs": FLOATS, "targets": FLOATS.astype(int)}, {}, "'targets' is [40, 2] of int64, but must be [N] of integers or strings"),
    ({"inputs": FLOATS, "targets": CLASSES * 0}, {}, "targets: column 'targets' holds one class alone, '0'"),
    ({"inputs": FLOATS, "targets": np.arange(40)}, {}, "targets: column 'targets' has 40 different values in 40 rows, too many"),
])
def test_arrays_that_do_not_fit(arrays: dict[str, Any], args: dict[str, str], says: str, save: Any, refusal: Refusal) -> None:
    assert says in refusal("npz", uri=save(**arrays), **args).message


def test_numbers_beyond_float32_are_told(save: Any, refusal: Refusal) -> None:
    assert "inputs holds NaN or infinity" in refusal("npz", uri=save(inputs=FLOATS * 1e300, targets=CLASSES)).message


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 and no more"])
def test_a_broken_file(content: bytes, tmp_path: Path, refusal: Refusal) -> None:
    (tmp_path / "arrays.npz").write_bytes(content)
    assert "spec.data.args.uri: " in refusal("npz", uri=str(tmp_path / "arrays.npz")).message


def test_a_single_array(tmp_path: Path, refusal: Refusal) -> None:
    np.save(tmp_path / "array.npy", FLOATS)
    assert "array.npy is a single array (.npy); write it with numpy.savez" in refusal("npz", uri=str(tmp_path / "array.npy")).message
