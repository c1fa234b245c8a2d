"""Which rows are for training, validation and test: decided by the number of rows, their classes and the seed, and by nothing else.

The order comes from torch's CPU generator (Mersenne Twister), whatever the machine and the number of threads.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from dropout_api.builtins.data import Splitting
from dropout_trainer.data import MIN_ROWS, Split
from dropout_trainer.errors import StageFailure
from dropout_trainer.readers.failures import invalid

TRAIN, VAL, TEST = "train", "val", "test"
Shares = Mapping[str, float]
"""Of all rows, for each split but `train`, which gets the rest."""
Triple = tuple[Split, Split, Split]
"""Training, validation and test rows."""
Parts = dict[str, Tensor]
"""Numbers of the rows of each split, each [M] of int64; together each row once."""


def shares(splitting: Splitting) -> Shares:
    return {VAL: splitting.val_fraction, TEST: splitting.test_fraction}


def permutation(rows: int, seed: int) -> Tensor:
    """Row numbers in a random order, [rows]."""
    return torch.randperm(rows, generator=torch.Generator().manual_seed(seed))


def sizes(rows: int, wanted: Shares) -> dict[str, int]:
    """Rows of each split, `train` first. Raises StageFailure when one of them would be too small."""
    others = {name: round(rows * share) for name, share in wanted.items()}
    result = {TRAIN: rows - sum(others.values()), **others}
    for name, size in result.items():
        if size < MIN_ROWS:
            raise _too_small(name, f"{rows} rows leave {size} for {name}, but at least {MIN_ROWS} are needed")
    return result


def cut(order: Tensor, wanted: Shares) -> Parts:
    """The first of these rows are for training, the next for the other splits in turn. Raises StageFailure for too few rows."""
    lengths = sizes(len(order), wanted)
    return dict(zip(lengths, torch.split(order, list(lengths.values())), strict=True))


def seeded(rows: int, wanted: Shares, seed: int) -> Parts:
    """A random order, cut. Raises StageFailure for too few rows."""
    return cut(permutation(rows, seed), wanted)


def stratified(classes: Tensor, names: Sequence[str], wanted: Shares, seed: int) -> Parts:
    """As `seeded`, but of each class apart: its part of a split is its share to the nearest row, and at least one row.

    `classes` is [N] of int64 numbers into `names`. Within a split the order stays random. Raises StageFailure for a class of too few rows.
    """
    sizes(len(classes), wanted)
    order = permutation(len(classes), seed)
    split_of = torch.zeros(len(classes), dtype=torch.int64)
    for number in torch.unique(classes).tolist():
        mine = order[classes[order] == number]
        lengths = [max(1, round(len(mine) * share)) for share in wanted.values()]
        if sum(lengths) >= len(mine):
            remedy = "leave it out of the data, add rows, lower val_fraction and test_fraction, or set stratify: false"
            raise invalid("stratify", f"class '{names[number]}' has {len(mine)} rows, too few to be in each split; {remedy}")
        for split, rows in enumerate(torch.split(mine[: sum(lengths)], lengths), 1):
            split_of[rows] = split
    return {name: order[split_of[order] == split] for split, name in enumerate((TRAIN, *wanted))}


def ordered(rows: int, wanted: Shares, reach: int) -> dict[str, range]:
    """Of rows in time: the first rows of each split's windows, where a window is `reach` rows long.

    The rows are cut into stretches that follow each other. A window lies within one stretch, so that no row, seen or to be forecast, is
    in two splits; it costs each boundary reach − 1 windows. Raises StageFailure when a stretch has too few windows.
    """
    start, result = 0, {}
    for name, length in sizes(rows, wanted).items():
        windows = length - reach + 1
        if windows < MIN_ROWS:
            needed = f"{MIN_ROWS} windows of {reach} rows (window + horizon) need {reach + MIN_ROWS - 1}"
            raise _too_small(name, f"of {rows} rows {name} gets {length}, but {needed}; lower window or horizon")
        result[name] = range(start, start + windows)
        start += length
    return result


def split_rows(classes: Tensor, names: Sequence[str] | None, wanted: Shares, seed: int) -> Parts:
    """Stratified by classes of these names, or only seeded when None. Raises StageFailure for too few rows."""
    return seeded(len(classes), wanted, seed) if names is None else stratified(classes, names, wanted, seed)


def take(whole: Split, parts: Parts) -> Triple:
    return whole.take(parts[TRAIN]), whole.take(parts[VAL]), whole.take(parts[TEST])


def carve(given: Mapping[str, Split], wanted: Shares, seed: int, names: Sequence[str] | None) -> Triple:
    """Where splits that are not `given` are cut from the rows of `train`. Raises StageFailure for too few rows."""
    train = given[TRAIN]
    lacking = {name: share for name, share in wanted.items() if name not in given}
    parts = split_rows(train.targets, names, lacking, seed)
    val, test = (train.take(parts[name]) if name in parts else given[name] for name in (VAL, TEST))
    return train.take(parts[TRAIN]), val, test


def _too_small(name: str, what: str) -> StageFailure:
    field = f"{TEST if name == TEST else VAL}_fraction"
    change = "lower val_fraction and test_fraction" if name == TRAIN else f"raise {field}"
    return invalid(field, f"{what}; {change}, or give more rows")
