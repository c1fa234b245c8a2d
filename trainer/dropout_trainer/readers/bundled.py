"""The built-in data factories: real data sets, read from files that are already there, split by a seeded permutation."""

import gzip
import struct
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dropout_api.builtins.data import FashionMnistArguments, SklearnArguments
from dropout_api.names import ExitCode
from dropout_trainer.data import Data, Split
from dropout_trainer.errors import StageFailure

SKLEARN_TABLES = {
    "digits": ("digits.csv.gz", tuple("0123456789")), "breast_cancer": ("breast_cancer.csv", ("malignant", "benign")),
    "wine": ("wine_data.csv", ("class_0", "class_1", "class_2")),
}
FASHION_CLASSES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
FASHION_FIELD = "spec.data.args.path"
UNSIGNED_BYTE = 0x08


def sklearn(arguments: SklearnArguments, seed: int) -> Data:
    """Digits as [1, 8, 8] images in 0…1, the tables standardised with the training rows' mean and deviation."""
    file, class_names = SKLEARN_TABLES[arguments.name]
    rows = _sklearn_table(file)
    inputs, targets = torch.from_numpy(rows[:, :-1]).float(), torch.from_numpy(rows[:, -1]).long()
    images = arguments.name == "digits"
    whole = Split(inputs.reshape(-1, 1, 8, 8) / 16 if images else inputs, targets)
    chosen = whole.take(_permutation(len(whole), seed))
    parts = _cut(chosen, [arguments.val_fraction, arguments.test_fraction])
    train, val, test = parts if images else _standardised(*parts)
    return Data(train, val, test, class_names)


def fashion_mnist(arguments: FashionMnistArguments, seed: int) -> Data:
    """Images [1, 28, 28] in 0…1; validation rows come from the training files, the test set is the test files'.

    Raises StageFailure when a file is missing or not an IDX file (http://yann.lecun.com/exdb/mnist/).
    """
    folder = Path(arguments.path)
    images, labels = (_idx(folder, f"train-{kind}-ubyte") for kind in ("images-idx3", "labels-idx1"))
    chosen = _permutation(len(labels), seed)[: arguments.limit]
    train, val = _cut(_images(images[chosen], labels[chosen]), [arguments.val_fraction])
    test = _images(*(_idx(folder, f"t10k-{kind}-ubyte") for kind in ("images-idx3", "labels-idx1")))
    return Data(train, val, test, FASHION_CLASSES)


def _sklearn_table(file: str) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """A table that scikit-learn carries, targets in the last column; read without importing scikit-learn and scipy,
    which would take longer than to train on it."""
    package = find_spec("sklearn")
    if package is None or package.origin is None:
        message = "spec.data.factory: 'sklearn' needs scikit-learn in spec.image; derive that from the platform's trainer image"
        raise StageFailure("DataMissing", message, ExitCode.DATA_MISSING)
    path = Path(package.origin).parent / "datasets" / "data" / file
    return np.loadtxt(path, delimiter=",", skiprows=0 if file.startswith("digits") else 1, ndmin=2)


def _permutation(rows: int, seed: int) -> Tensor:
    return torch.randperm(rows, generator=torch.Generator().manual_seed(seed))


def _cut(whole: Split, fractions: list[float]) -> list[Split]:
    """The first rows are for training, the last ones in turn for each fraction."""
    sizes = [round(len(whole) * fraction) for fraction in fractions]
    sizes.insert(0, len(whole) - sum(sizes))
    return [Split(*pair) for pair in zip(torch.split(whole.inputs, sizes), torch.split(whole.targets, sizes), strict=True)]


def _standardised(train: Split, *others: Split) -> list[Split]:
    mean, deviation = train.inputs.mean(0), train.inputs.std(0)
    deviation = torch.where(deviation > 0, deviation, 1)
    return [Split((split.inputs - mean) / deviation, split.targets) for split in (train, *others)]


def _images(images: Tensor, labels: Tensor) -> Split:
    return Split(images.unsqueeze(1).to(torch.float32) / 255, labels.to(torch.int64))


def _idx(folder: Path, name: str) -> Tensor:
    """The uint8 tensor in an IDX file: two zero bytes, type, number of dimensions, sizes as big-endian 32 bits, data."""
    path = next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)
    if path is None:
        remedy = "mount the volume that holds it with spec.podTemplate.volumes and volumeMounts"
        raise StageFailure("DataMissing", f"{FASHION_FIELD}: no {name} or {name}.gz in {folder}; {remedy}", ExitCode.DATA_MISSING)
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        return _parse_idx(content)
    except (OSError, EOFError, ValueError, struct.error) as error:
        raise StageFailure("DataInvalid", f"{FASHION_FIELD}: {path} cannot be read: {error}", ExitCode.DATA_INVALID) from None


def _parse_idx(content: bytes) -> Tensor:
    zero, kind, dimensions = struct.unpack_from(">HBB", content)
    if zero or kind != UNSIGNED_BYTE:
        raise ValueError("it is not an IDX file of unsigned bytes")
    sizes = struct.unpack_from(f">{dimensions}I", content, 4)
    flat = np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions)
    return torch.from_numpy(flat.reshape(sizes).copy())
