"""Rows of a CSV or Parquet file: features in columns of numbers or names, one or more columns to answer."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dropout_api.builtins.data import TableArguments
from dropout_api.metrics import TaskKind
from dropout_trainer.data import Data, Scaling, Split, scaling_of
from dropout_trainer.readers.columns import Columns, Numbers, read_csv, read_parquet
from dropout_trainer.readers.failures import invalid, misspelt
from dropout_trainer.readers.labels import Labels, class_labels, number_labels
from dropout_trainer.readers.splitting import TRAIN, Parts, shares, split_rows, take

FEATURE = "name it in categorical if it holds names or codes, or in drop"
VALUE = "task: Regression needs numbers; leave task out for classes"


@dataclass(frozen=True)
class Features:
    """Columns of numbers, NaN where one is missing, and columns of names."""

    numbers: dict[str, Numbers]
    categories: dict[str, list[str]]
    order: list[str]


@dataclass(frozen=True)
class Block:
    """Some of the inputs' columns, [N, columns] of float64, with names and scaling."""

    values: Tensor
    names: list[str]
    scaling: Scaling


def csv(arguments: TableArguments, seed: int) -> Data:
    """Raises StageFailure for a file that cannot be read, and for columns that do not go with the arguments."""
    return table(arguments, read_csv(arguments.uri), seed)


def parquet(arguments: TableArguments, seed: int) -> Data:
    """As `csv`."""
    return table(arguments, read_parquet(arguments.uri), seed)


def table(arguments: TableArguments, columns: Columns, seed: int) -> Data:
    """Inputs [N, columns] in raw values, with a scaling; a categorical column is there as one column of 0 and 1 for each of its values in
    the training rows, called `column=value`, and a value that those lack is 0 in all of them."""
    features = feature_columns(arguments, columns)
    columns = _without_gaps(arguments, columns, features)
    held = _features(arguments, columns, features)
    labels, targets = _targets(arguments, columns)
    parts = split_rows(targets, labels.names if labels and arguments.stratify else None, shares(arguments), seed)
    blocks = [_block(held, name, parts) for name in held.order]
    segments = number_labels(columns.texts(arguments.segment)) if arguments.segment else None
    inputs = torch.cat([block.values for block in blocks], 1).float()
    whole = Split(inputs, targets, None if segments is None else segments.numbers)
    train, val, test = take(whole, parts)
    return Data(
        train, val, test, class_names=labels.names if labels else (), segment_names=segments.names if segments else (),
        scaling=Scaling(torch.cat([block.scaling.mean for block in blocks]), torch.cat([block.scaling.deviation for block in blocks])),
        feature_names=tuple(name for block in blocks for name in block.names),
    )


def feature_columns(arguments: TableArguments, columns: Columns) -> list[str]:
    """The features in the order in which they are named, or in the file's. Raises StageFailure for columns that are not there."""
    for field in ("features", "drop", "categorical"):
        columns.require(field, getattr(arguments, field))
    columns.require("target", arguments.targets)
    columns.require("segment", [arguments.segment] if arguments.segment else [])
    if arguments.features:
        return list(arguments.features)
    other = {*arguments.targets, *arguments.drop, *({arguments.segment} - set(arguments.categorical))}
    features = [name for name in columns.names if name not in other]
    if not features:
        raise misspelt("features", f"target, drop and segment leave no column of {columns.uri} to answer from")
    return features


def _without_gaps(arguments: TableArguments, columns: Columns, features: Sequence[str]) -> Columns:
    """Raises StageFailure for a missing value that is not to be dropped or filled."""
    numbers = [name for name in features if name not in arguments.categorical]
    whole = np.ones(len(columns), np.bool_)
    for name in [*numbers, *arguments.targets, *([arguments.segment] if arguments.segment else [])]:
        here = _present(arguments, columns, name, name in numbers)
        filled = arguments.missing == "Mean" and name in numbers
        if arguments.missing != "DropRows" and not filled and not here.all():
            remedy = "set missing: DropRows" + (" or Mean, or drop the column" if name in numbers else "")
            where = f"{int((~here).sum())} of {len(here)} rows, first in row {1 + int(here.argmin())}"
            raise invalid("missing", f"column '{name}' has no value in {where}; {remedy}")
        whole &= here | filled
    if not whole.any():
        raise invalid("missing", f"every row of {columns.uri} lacks some value, so DropRows leaves none; drop the columns that are empty")
    return columns if whole.all() else columns.take(whole)


def _present(arguments: TableArguments, columns: Columns, name: str, feature: bool) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    if feature:
        return ~np.isnan(columns.numbers(name, "features", FEATURE))
    if name in arguments.targets and arguments.task is TaskKind.REGRESSION:
        return ~np.isnan(columns.numbers(name, "target", VALUE))
    return np.array([text != "" for text in columns.texts(name)], np.bool_)


def _features(arguments: TableArguments, columns: Columns, features: Sequence[str]) -> Features:
    numbers = {name: columns.numbers(name, "features", FEATURE) for name in features if name not in arguments.categorical}
    categories = {name: columns.texts(name) for name in features if name in arguments.categorical}
    return Features(numbers, categories, list(features))


def _targets(arguments: TableArguments, columns: Columns) -> tuple[Labels | None, Tensor]:
    """[N] of class numbers with their names, or [N, values]."""
    if arguments.task is TaskKind.CLASSIFICATION:
        labels = class_labels(columns.texts(arguments.targets[0]), "target", arguments.targets[0])
        return labels, labels.numbers
    values = [torch.from_numpy(columns.numbers(name, "target", VALUE)) for name in arguments.targets]
    return None, torch.stack(values, 1).float()


def _block(features: Features, name: str, parts: Parts) -> Block:
    return _coded(name, features.categories[name], parts) if name in features.categories else _number(name, features.numbers[name], parts)


def _number(name: str, values: Numbers, parts: Parts) -> Block:
    column = torch.from_numpy(values).unsqueeze(1)
    gaps = column.isnan()
    mean = column[parts[TRAIN]].nanmean()
    if bool(mean.isnan()):
        raise invalid("missing", f"column '{name}' has no value in any training row; drop it")
    filled = torch.where(gaps, mean, column)
    return Block(filled, [name], scaling_of(filled[parts[TRAIN]]))


def _coded(name: str, texts: Sequence[str], parts: Parts) -> Block:
    """Columns of 0 and 1 stay as they are: in units of their deviation a rare value would outweigh all others."""
    labels = number_labels(texts)
    trained = torch.unique(labels.numbers[parts[TRAIN]])
    values = (labels.numbers.unsqueeze(1) == trained).double()
    names = [f"{name}={labels.names[number]}" for number in trained.tolist()]
    return Block(values, names, Scaling(torch.zeros(len(names)), torch.ones(len(names))))
