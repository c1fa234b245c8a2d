"""The data of a training: three splits of tensors in memory, and what a model needs to know of their shape.

A user's data factory returns a `Data`; so do the built-in ones.
"""

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

DTYPES = {torch.float32: "float32", torch.int64: "int64"}
MIN_ROWS = 2  # an export's example batch must hold two rows, or torch takes the batch size for a constant


@dataclass(frozen=True)
class Split:
    """Rows of a data set.

    `inputs` is [N, ...] of float32 or int64 (token ids), `targets` is [N] of int64 class numbers from 0.
    """

    inputs: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.targets)

    def take(self, rows: Tensor) -> "Split":
        """The rows of these numbers, [M] of int64."""
        return Split(self.inputs[rows], self.targets[rows])


@dataclass(frozen=True)
class Data:
    """Training, validation and test set of a classification; `class_names` may be left out."""

    train: Split
    val: Split
    test: Split
    class_names: tuple[str, ...] = ()

    @property
    def splits(self) -> dict[str, Split]:
        return {"train": self.train, "val": self.val, "test": self.test}

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input, without the batch dimension."""
        return tuple(self.train.inputs.shape[1:])

    @property
    def num_classes(self) -> int:
        """As many as there are names, else one more than the largest target."""
        return len(self.class_names) or 1 + max(int(split.targets.max()) for split in self.splits.values())


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
    if targets.dtype != torch.int64 or targets.ndim != 1:
        found.append(f"targets must be [N] of int64 class numbers, not {list(targets.shape)} of {_name(targets.dtype)}")
    if not found and len(inputs) != len(targets):
        found.append(f"inputs has {len(inputs)} rows but targets has {len(targets)}")
    if not found and len(targets) < MIN_ROWS:
        found.append(f"targets has {len(targets)} rows; at least {MIN_ROWS} are needed")
    if not found and not bool(torch.isfinite(inputs).all()):
        found.append("inputs holds NaN or infinity; replace or drop those rows")
    return found


def _joint_problems(data: Data) -> list[str]:
    found, first = [], data.train.inputs
    for name, split in data.splits.items():
        if split.inputs.shape[1:] != first.shape[1:] or split.inputs.dtype != first.dtype:
            found.append(f"{name}.inputs is {_kind(split.inputs)} a row, but train.inputs is {_kind(first)}")
        if int(split.targets.min()) < 0 or int(split.targets.max()) >= data.num_classes:
            span = f"{int(split.targets.min())}…{int(split.targets.max())}"
            found.append(f"{name}.targets are {span}, but must lie in 0…{data.num_classes - 1}")
    if data.num_classes < 2:
        found.append("targets name one class alone; at least two are needed")
    return found


def digest(data: Data) -> str:
    """SHA-256 over dtype, shape and bytes of all splits, in hex."""
    sha = hashlib.sha256()
    for name, split in data.splits.items():
        for tensor in (split.inputs, split.targets):
            sha.update(f"{name}/{_kind(tensor)}/{len(tensor)}".encode())
            sha.update(tensor.detach().cpu().contiguous().numpy().data)
    return sha.hexdigest()


def _kind(tensor: Tensor) -> str:
    return f"{list(tensor.shape[1:])} of {_name(tensor.dtype)}"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
