"""A series' windows show what was before and ask for what comes next, and no value that is seen or asked for is in two splits."""

from collections.abc import Callable

import pytest
import torch

from dropout_trainer.data import Data
from dropout_trainer.errors import StageFailure

Read = Callable[..., Data]
Write = Callable[[str], str]
ROWS = "t,cold\n" + "".join(f"{number},{-number}\n" for number in range(100))


@pytest.fixture
def data(read: Read, write: Write) -> Data:
    return read("series", uri=write(ROWS), column="t", covariates=["cold"], window=5, horizon=3)


def test_what_is_asked_for_follows_what_is_seen(data: Data) -> None:
    for split in data.splits.values():
        starts = split.inputs[:, :1, 0]
        assert torch.equal(split.inputs[..., 0], starts + torch.arange(5))
        assert torch.equal(split.inputs[..., 1], -split.inputs[..., 0])
        assert torch.equal(split.targets, starts + 5 + torch.arange(3))


def test_splits_follow_in_time_and_share_nothing(data: Data) -> None:
    held = [set(torch.cat([split.inputs[..., 0], split.targets], 1).flatten().tolist()) for split in data.splits.values()]
    assert [(min(rows), max(rows)) for rows in held] == [(0, 69), (70, 84), (85, 99)]
    assert sum(map(len, held)) == 100


def test_each_start_is_a_window(data: Data) -> None:
    assert [len(split) for split in data.splits.values()] == [70 - 7, 15 - 7, 15 - 7]


def test_the_scaling_is_that_of_the_training_stretch(data: Data) -> None:
    assert data.scaling is not None
    assert data.scaling.mean.tolist() == [34.5, -34.5]
    assert data.scaling.deviation[0].item() == pytest.approx(torch.arange(70.0).std(correction=0).item())
    assert data.feature_names == ("t", "cold")


def test_the_seed_decides_nothing(read: Read, write: Write, data: Data) -> None:
    other = read("series", seed=9, uri=write(ROWS), column="t", covariates=["cold"], window=5, horizon=3)
    assert torch.equal(other.train.inputs, data.train.inputs)


@pytest.mark.parametrize(("content", "args", "says"), [
    (ROWS, {"column": "x", "window": 5}, "column: there is no column 'x' in "),
    (ROWS, {"column": "t", "covariates": ["x"], "window": 5}, "covariates: there is no column 'x' in "),
    (ROWS.replace("\n7,-7", "\n,-7"), {"column": "t", "window": 5}, "column: column 't' has no value in row 8; a series may have no gaps"),
    (ROWS.replace("\n7,-7", "\n7,low"), {"column": "t", "covariates": ["cold"], "window": 5}, "covariates: column 'cold' holds text"),
    (ROWS, {"column": "t", "window": 15},
     "val_fraction: of 100 rows val gets 15, but 2 windows of 16 rows (window + horizon) need 17; lower window or horizon; raise val_"),
])
def test_what_cannot_be_is_told(
        content: str, args: dict[str, object], says: str, write: Write, refusal: Callable[..., StageFailure]) -> None:
    assert f"spec.data.args.{says}" in refusal("series", uri=write(content), **args).message
