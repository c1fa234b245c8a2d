"""Data sets that scikit-learn carries, read without importing it and scipy, which would take longer than to train on them."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from dropout_api.builtins.data import SklearnArguments
from dropout_api.names import ExitCode
from dropout_trainer.data import Data, Split
from dropout_trainer.errors import StageFailure
from dropout_trainer.readers.splitting import Triple, seeded, shares, take

TABLES = {
    "digits": ("digits.csv.gz", tuple("0123456789")), "breast_cancer": ("breast_cancer.csv", ("malignant", "benign")),
    "wine": ("wine_data.csv", ("class_0", "class_1", "class_2")),
}
DARKEST = 16
"""Of a digit's pixels."""


def sklearn(arguments: SklearnArguments, seed: int) -> Data:
    """Digits as [1, 8, 8] images in 0…1, the tables standardised with the training rows' mean and deviation."""
    file, class_names = TABLES[arguments.name]
    rows = _rows(file)
    inputs, targets = torch.from_numpy(rows[:, :-1]).float(), torch.from_numpy(rows[:, -1]).long()
    images = arguments.name == "digits"
    whole = Split(inputs.reshape(-1, 1, 8, 8) / DARKEST if images else inputs, targets)
    parts = seeded(len(whole), shares(arguments), seed)
    train, val, test = take(whole, parts) if images else standardised(*take(whole, parts))
    return Data(train, val, test, class_names)


def _rows(file: str) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Of a table, the class number in the last column."""
    package = find_spec("sklearn")
    if package is None or package.origin is None:
        message = "spec.data.factory: 'sklearn' needs scikit-learn in spec.image; derive that from the platform's trainer image"
        raise StageFailure("DataMissing", message, ExitCode.DATA_MISSING)
    path = Path(package.origin).parent / "datasets" / "data" / file
    return np.loadtxt(path, delimiter=",", skiprows=0 if file.startswith("digits") else 1, ndmin=2)


def standardised(train: Split, val: Split, test: Split) -> Triple:
    """With the mean and deviation of `train`."""
    mean, deviation = train.inputs.mean(0), train.inputs.std(0)
    deviation = torch.where(deviation > 0, deviation, 1)
    train, val, test = (Split((split.inputs - mean) / deviation, split.targets) for split in (train, val, test))
    return train, val, test
