"""Cross-validation uses each row for validation once, leaves the test set alone, and gives mean and deviation."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dropout_api.training import CrossValidation
from dropout_trainer.data import Data, Split
from dropout_trainer.errors import StageFailure
from dropout_trainer.train.trials import data_of, summary, trials


def numbered(rows: int, test: int = 5) -> Data:
    """Rows whose input is their number."""
    def split(first: int, count: int) -> Split:
        return Split(torch.arange(first, first + count, dtype=torch.float32).reshape(-1, 1), torch.arange(first, first + count) % 2)

    return Data(split(0, rows - rows // 4), split(rows - rows // 4, rows // 4), split(rows, test))


def rows_of(split: Split) -> list[int]:
    return [int(number) for number in split.inputs.flatten()]


@given(rows=st.integers(20, 200), folds=st.integers(2, 10), seed=st.integers(0, 2**32 - 1))
def test_each_row_is_held_out_once_and_the_test_set_never_seen(rows: int, folds: int, seed: int) -> None:
    data = numbered(rows)
    parts = [data_of(trial, data, folds) for trial in trials(CrossValidation(folds=folds), seed)]
    assert sorted(row for part in parts for row in rows_of(part.val)) == list(range(rows))
    for part in parts:
        assert not set(rows_of(part.train)) & set(rows_of(part.val))
        assert len(part.train) + len(part.val) == rows
        assert rows_of(part.test) == rows_of(data.test)
    sizes = {len(part.val) for part in parts}
    assert max(sizes) - min(sizes) <= 1


def test_repeats_draw_other_folds_under_other_seeds() -> None:
    made = trials(CrossValidation(folds=2, repeats=3), 42)
    assert [trial.fold for trial in made] == [0, 1] * 3
    assert made[0].seed == 42
    assert len({trial.seed for trial in made}) == 3
    first, second = (rows_of(data_of(made[number], numbered(40), 2).val) for number in (0, 2))
    assert set(first) != set(second)


def test_without_folds_the_split_stays() -> None:
    data = numbered(40)
    assert all(data_of(trial, data, 0) is data for trial in trials(CrossValidation(repeats=3), 1))


def test_mean_and_sample_deviation_of_validation_metrics_alone() -> None:
    told = summary([{"val_loss": 1.0, "train_loss": 5.0}, {"val_loss": 3.0, "train_loss": 5.0}])
    assert told == {"cv_val_loss_mean": 2.0, "cv_val_loss_std": pytest.approx(2**0.5)}


def test_a_metric_that_one_trial_does_not_have_has_no_mean() -> None:
    told = summary([{"val_loss": 1.0, "val_roc_auc_macro": math.nan}, {"val_loss": 3.0, "val_roc_auc_macro": 0.5}])
    assert told["cv_val_loss_mean"] == 2.0
    assert math.isnan(told["cv_val_roc_auc_macro_mean"])
    assert math.isnan(told["cv_val_roc_auc_macro_std"])


def test_more_folds_than_rows_for_them_are_refused() -> None:
    trial = trials(CrossValidation(folds=9), 1)[0]
    assert len(data_of(trial, numbered(18), 9).val) == 2
    with pytest.raises(StageFailure, match="folds: is 9, but training and validation set have 17 rows together, enough for 8 folds"):
        data_of(trial, numbered(17), 9)
