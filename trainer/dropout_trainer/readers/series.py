"""Windows of a time series."""

import numpy as np
import torch
from torch import Tensor

from dropout_api.builtins.data import SeriesArguments
from dropout_trainer.data import Data, Split, scaling_of
from dropout_trainer.readers.columns import Columns, Numbers, read_either
from dropout_trainer.readers.failures import invalid
from dropout_trainer.readers.splitting import TEST, TRAIN, VAL, ordered, shares

REMEDY = "name a column of numbers"


def series(arguments: SeriesArguments, seed: int) -> Data:
    """Inputs [N, window, 1 + covariates] in raw values, the series first; targets [N, horizon] are the series' values that follow.

    Rows are cut into three stretches in time, and each window with its horizon lies within one (`splitting.ordered`), so the seed decides
    nothing. The scaling is that of the training stretch. Raises StageFailure for columns that are not there or have gaps.
    """
    columns = read_either(arguments.uri)
    columns.require("column", [arguments.column])
    columns.require("covariates", arguments.covariates)
    names = [arguments.column, *arguments.covariates]
    fields = ["column", *["covariates"] * len(arguments.covariates)]
    values = torch.from_numpy(np.stack([_whole(columns, name, field) for name, field in zip(names, fields, strict=True)], 1)).float()
    stretches = ordered(len(values), shares(arguments), arguments.window + arguments.horizon)
    first = stretches[TRAIN]
    trained = values[first.start : first.stop + arguments.window + arguments.horizon - 1]
    splits = {name: windows(values, stretch, arguments.window, arguments.horizon) for name, stretch in stretches.items()}
    return Data(splits[TRAIN], splits[VAL], splits[TEST], scaling=scaling_of(trained), feature_names=tuple(names))


def windows(values: Tensor, starts: range, window: int, horizon: int) -> Split:
    """Of `values` [rows, features]: inputs [N, window, features] from each start, targets [N, horizon] of the first feature after them."""
    seen = values[starts.start : starts.stop + window - 1].unfold(0, window, 1).transpose(1, 2)
    ahead = values[starts.start + window : starts.stop + window + horizon - 1, 0].unfold(0, horizon, 1)
    return Split(seen.contiguous(), ahead.contiguous())


def _whole(columns: Columns, name: str, field: str) -> Numbers:
    values = columns.numbers(name, field, REMEDY)
    if np.isnan(values).any():
        row = 1 + int(np.isnan(values).argmax())
        raise invalid(field, f"column '{name}' has no value in row {row}; a series may have no gaps, so fill it or cut the file there")
    return values
