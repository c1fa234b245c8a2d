"""Data sets of Hugging Face `datasets`, where that is installed (https://huggingface.co/docs/datasets)."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dropout_api.builtins.data import HuggingFaceArguments
from dropout_trainer.data import Data, Split, scaling_of
from dropout_trainer.readers.arrays import SCALED_DIMENSIONS, as_inputs, as_targets
from dropout_trainer.readers.failures import invalid, listed, missing, misspelt
from dropout_trainer.readers.labels import class_labels
from dropout_trainer.readers.splitting import TEST, TRAIN, VAL, carve, shares

GIVEN = {VAL: "validation", TEST: "test"}
"""What the hub calls the splits."""


def hugging_face(arguments: HuggingFaceArguments, seed: int) -> Data:
    """Splits `validation` and `test` are taken as they are where the set has them, and cut from `split` where not.

    Raises StageFailure when datasets is not installed, the set is not to be had, or its columns do not fit.
    """
    sets = _load(arguments)
    if arguments.split not in sets:
        raise misspelt("split", f"there is no split '{arguments.split}' in {arguments.path}; it has {listed(sorted(sets))}")
    wanted = {TRAIN: arguments.split, **{name: theirs for name, theirs in GIVEN.items() if theirs in sets and theirs != arguments.split}}
    names, targets = _targets(arguments, {name: sets[theirs] for name, theirs in wanted.items()})
    given = {name: Split(_inputs(arguments, sets[theirs]), targets[name]) for name, theirs in wanted.items()}
    train, val, test = carve(given, shares(arguments), seed, names if names and arguments.stratify else None)
    scaled = train.inputs.is_floating_point() and train.inputs.dim() in SCALED_DIMENSIONS
    return Data(train, val, test, class_names=names, scaling=scaling_of(train.inputs) if scaled else None)


def _load(arguments: HuggingFaceArguments) -> Mapping[str, Any]:
    if find_spec("datasets") is None:
        raise missing("path", "'hugging_face' needs the package datasets; derive an image for spec.image from the platform's with it")
    import datasets

    try:
        if Path(arguments.path).is_dir() and any((Path(arguments.path) / file).exists() for file in ("dataset_dict.json", "state.json")):
            found = datasets.load_from_disk(arguments.path)
        else:
            found = datasets.load_dataset(arguments.path, arguments.name)
    except Exception as error:  # the hub's client, the cache and each file format have exceptions of their own
        reason = next(iter(str(error).splitlines()), "")[:300]
        what = f"{arguments.path} is no folder of save_to_disk and cannot be loaded by name: {type(error).__name__}: {reason}"
        raise missing("path", f"{what}; mount the folder, or let the pod reach the hub") from None
    return found if isinstance(found, Mapping) else {arguments.split: found}


def _column(arguments: HuggingFaceArguments, field: str, rows: Any) -> Any:
    name = getattr(arguments, field)
    if name not in rows.column_names:
        raise misspelt(field, f"there is no column '{name}' in {arguments.path}; its columns are {listed(list(rows.column_names))}")
    return rows[name]


def _inputs(arguments: HuggingFaceArguments, rows: Any) -> Tensor:
    values = list(_column(arguments, "inputs", rows))
    if values and hasattr(values[0], "convert"):
        return _pictures(values, arguments.inputs)
    return as_inputs(_stacked(values, "inputs", arguments.inputs), "inputs", arguments.inputs)


def _pictures(values: list[Any], name: str) -> Tensor:
    from dropout_trainer.readers.pictures import as_tensor

    channels = 1 if all(picture.mode in ("1", "L") for picture in values) else 3
    found = [as_tensor(picture, channels) for picture in values]
    shapes = sorted({tuple(picture.shape[1:]) for picture in found})
    if len(shapes) > 1:
        raise invalid("inputs", f"pictures of '{name}' differ in size, as {shapes[0]} and {shapes[-1]}; save them in one, or use images")
    return torch.stack(found)


def _targets(arguments: HuggingFaceArguments, sets: Mapping[str, Any]) -> tuple[tuple[str, ...], dict[str, Tensor]]:
    """Of all splits together, so that they share their classes; names come from a ClassLabel feature where there is one."""
    each = {name: list(_column(arguments, "target", rows)) for name, rows in sets.items()}
    together = [value for values in each.values() for value in values]
    if None in together:
        raise invalid("target", f"column '{arguments.target}' is empty in {together.count(None)} rows; drop those rows")
    named = getattr(sets[TRAIN].features[arguments.target], "names", None)
    if named:
        numbers, names = torch.tensor(together, dtype=torch.int64), tuple(named)
    elif isinstance(together[0], str):
        labels = class_labels(together, "target", arguments.target)
        numbers, names = labels.numbers, labels.names
    else:
        numbers, names = as_targets(_stacked(together, "target", arguments.target), "target", arguments.target)
    return names, dict(zip(each, torch.split(numbers, [len(values) for values in each.values()]), strict=True))


def _stacked(values: list[Any], field: str, name: str) -> np.ndarray[Any, np.dtype[Any]]:
    try:
        return np.array(values)
    except ValueError:
        raise invalid(field, f"rows of '{name}' differ in shape; pad or cut them to one length") from None
