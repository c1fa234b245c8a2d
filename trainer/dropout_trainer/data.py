"""The data of a training: three splits of tensors in memory, and what a model needs to know of their shape.

A user's data factory returns a `Data`; so do the built-in ones.
"""

import hashlib
import json
from dataclasses import dataclass

import torch
from torch import Tensor

from dropout_api.metrics import TaskKind

DTYPES = {torch.float32: "float32", torch.int64: "int64"}
VARIES = 1e-12
"""Deviation, as a share of the mean, below which a feature is constant but for rounding."""
MIN_ROWS = 2  # an export's example batch must hold two rows, or torch takes the batch size for a constant


@dataclass(frozen=True)
class Split:
    """Rows of a data set.

    `inputs` is [N, ...] of float32 or int64 (token numbers). `targets` is [N] of int64 class numbers from 0, or [N, values] of
    float32. `segments`, where the data have them, is [N] of int64 numbers from 0.
    """

    inputs: Tensor
    targets: Tensor
    segments: Tensor | None = None

    def __len__(self) -> int:
        return len(self.targets)

    def take(self, rows: Tensor) -> "Split":
        """The rows of these numbers, [M] of int64."""
        return Split(self.inputs[rows], self.targets[rows], None if self.segments is None else self.segments[rows])

    def tensors(self) -> dict[str, Tensor]:
        """By field; without segments where there are none."""
        every = {"inputs": self.inputs, "targets": self.targets, "segments": self.segments}
        return {name: tensor for name, tensor in every.items() if tensor is not None}


@dataclass(frozen=True)
class Scaling:
    """Mean and standard deviation of each input feature in the training rows, each in the shape of one feature vector [features].

    The built-in models apply it to what they are given, the last dimension being features, so that they are served with raw values.
    """

    mean: Tensor
    deviation: Tensor


def scaling_of(values: Tensor) -> Scaling:
    """Of values [..., features] by their last dimension; the deviation is 1 where a feature never varies. Taken in double precision."""
    flat = values.double().flatten(0, -2)
    deviation, mean = torch.std_mean(flat, 0, correction=0)
    return Scaling(mean.float(), torch.where(deviation > VARIES * mean.abs(), deviation, 1).float())


@dataclass(frozen=True)
class Data:
    """Training, validation and test set. Names and a scaling may be left out."""

    train: Split
    val: Split
    test: Split
    class_names: tuple[str, ...] = ()
    segment_names: tuple[str, ...] = ()
    scaling: Scaling | None = None
    vocabulary: tuple[str, ...] = ()
    """Of token inputs: the token of each number. 0 pads, 1 stands for what is not in it."""
    feature_names: tuple[str, ...] = ()
    """Of the inputs' last dimension, as columns were put there."""

    @property
    def splits(self) -> dict[str, Split]:
        return {"train": self.train, "val": self.val, "test": self.test}

    @property
    def kind(self) -> TaskKind:
        return TaskKind.REGRESSION if self.train.targets.is_floating_point() else TaskKind.CLASSIFICATION

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input, without the batch dimension."""
        return tuple(self.train.inputs.shape[1:])

    @property
    def num_classes(self) -> int:
        """As many as there are names, else one more than the largest target. Of classifications alone."""
        return len(self.class_names) or 1 + max(int(split.targets.max()) for split in self.splits.values())

    @property
    def num_tokens(self) -> int:
        """Of token inputs: as many as the vocabulary has, else one more than the largest."""
        return len(self.vocabulary) or 1 + max(int(split.inputs.max()) for split in self.splits.values())


def problems(data: Data) -> list[str]:
    """What is wrong with `data`, each as `split.field what is wrong`; empty when it can be trained on."""
    found = [f"{name}.{problem}" for name, split in data.splits.items() for problem in _split_problems(split)]
    return found or _joint_problems(data)


def _split_problems(split: Split) -> list[str]:
    inputs, targets = split.inputs, split.targets
    if not isinstance(inputs, Tensor) or not isinstance(targets, Tensor):
        return ["inputs and targets must be torch tensors"]
    found = []
    if inputs.dtype not in DTYPES:
        found.append(f"inputs must be float32 or int64, not {_name(inputs.dtype)}")
    if inputs.ndim < 2:
        found.append(f"inputs must be [N, ...] with at least one dimension beside N, not {list(inputs.shape)}")
    if (targets.dtype, targets.ndim) not in ((torch.int64, 1), (torch.float32, 2)):
        wanted = "[N] of int64 class numbers or [N, values] of float32"
        found.append(f"targets must be {wanted}, not {list(targets.shape)} of {_name(targets.dtype)}")
    if not found and len(inputs) != len(targets):
        found.append(f"inputs has {len(inputs)} rows but targets has {len(targets)}")
    if not found and len(targets) < MIN_ROWS:
        found.append(f"targets has {len(targets)} rows; at least {MIN_ROWS} are needed")
    for field, tensor in (("inputs", inputs), ("targets", targets)):
        if not found and not bool(torch.isfinite(tensor).all()):
            found.append(f"{field} holds NaN or infinity; replace or drop those rows")
    segments = split.segments
    if segments is not None and (segments.dtype != torch.int64 or list(segments.shape) != [len(targets)]):
        found.append(f"segments must be [{len(targets)}] of int64, not {list(segments.shape)} of {_name(segments.dtype)}")
    return found


def _joint_problems(data: Data) -> list[str]:
    found = []
    for name, split in data.splits.items():
        for field in ("inputs", "targets"):
            mine, first = getattr(split, field), getattr(data.train, field)
            if mine.shape[1:] != first.shape[1:] or mine.dtype != first.dtype:
                found.append(f"{name}.{field} is {_kind(mine)} a row, but train.{field} is {_kind(first)}")
        if (split.segments is None) != (not data.segment_names):
            found.append(f"{name}.segments and segment_names must both be there or both be left out")
        elif split.segments is not None:
            found += _out_of_range(f"{name}.segments", split.segments, len(data.segment_names))
        if data.kind is TaskKind.CLASSIFICATION and not split.targets.is_floating_point():
            found += _out_of_range(f"{name}.targets", split.targets, data.num_classes)
    if data.kind is TaskKind.CLASSIFICATION and data.num_classes < 2:
        found.append("targets name one class alone; at least two are needed")
    return found + _naming_problems(data)


def _naming_problems(data: Data) -> list[str]:
    found, width = [], data.input_shape[-1]
    if data.scaling is not None:
        shapes = [list(data.scaling.mean.shape), list(data.scaling.deviation.shape)]
        if shapes != [[width], [width]]:
            found.append(f"scaling.mean and scaling.deviation are {shapes[0]} and {shapes[1]}, but a row's last dimension is [{width}]")
        elif not bool((data.scaling.deviation > 0).all()):
            found.append("scaling.deviation must be above 0; use 1 where a feature never varies")
    if data.feature_names and len(data.feature_names) != width:
        found.append(f"feature_names has {len(data.feature_names)} names, but a row's last dimension is [{width}]")
    if not data.train.inputs.is_floating_point():
        for name, split in data.splits.items():
            found += _out_of_range(f"{name}.inputs", split.inputs, data.num_tokens)
    return found


def _out_of_range(field: str, numbers: Tensor, count: int) -> list[str]:
    low, high = int(numbers.min()), int(numbers.max())
    return [f"{field} are {low}…{high}, but must lie in 0…{count - 1}"] if low < 0 or high >= count else []


def digest(data: Data) -> str:
    """SHA-256 in hex over all tensors of all splits, each with its name, dtype and shape, and over the names of classes, segments,
    tokens and features."""
    sha = hashlib.sha256()
    for name, split in data.splits.items():
        for field, tensor in split.tensors().items():
            sha.update(f"{name}.{field} {_kind(tensor)} {len(tensor)}\n".encode())
            sha.update(tensor.detach().cpu().contiguous().numpy().data)
    names = [data.class_names, data.segment_names, data.vocabulary, data.feature_names]
    sha.update(json.dumps(names, ensure_ascii=False).encode("utf-8", "surrogatepass"))
    return sha.hexdigest()


def _kind(tensor: Tensor) -> str:
    return f"{list(tensor.shape[1:])} of {_name(tensor.dtype)}"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
