"""Training stops when its patience has run out, and the model then has the weights of its best epoch."""

from dataclasses import replace
from typing import Any

import pytest
from torch import nn

from dropout_api.training import EarlyStopping, Loss
from dropout_trainer.data import Data
from dropout_trainer.errors import StageFailure
from dropout_trainer.train.evaluating import evaluate
from dropout_trainer.train.objective import make_task
from dropout_trainer.train.stopping import Best


def test_the_model_ends_with_the_weights_of_the_last_kept_epoch(train: Any, data: Data) -> None:
    trained = train(epochs=200, optimizer={"learning_rate": 0.05}, early_stopping={"patience": 3})
    kept = [result for result in trained.curve if result.kept]
    best = min(trained.curve, key=lambda result: result.val_loss)
    assert len(trained.curve) < 200
    assert kept[-1] == best
    assert trained.curve[-1].epoch == best.epoch + 3
    assert evaluate(trained.model, data.val, make_task(data, Loss())).loss == pytest.approx(best.val_loss, abs=1e-7)
    assert trained.curve[-1].val_loss > best.val_loss


def test_without_early_stopping_the_last_epoch_is_kept(train: Any) -> None:
    assert all(result.kept for result in train().curve)


@pytest.mark.parametrize(("mode", "delta", "values", "kept"), [
    ("Min", 0.0, [3, 2, 2, 1], [True, True, False, True]),
    ("Max", 0.0, [3, 2, 4, 4], [True, False, True, False]),
    ("Min", 0.5, [3, 2.6, 2.4, 1.9], [True, False, True, False]),
])
def test_what_counts_as_better(mode: str, delta: float, values: list[float], kept: list[bool]) -> None:
    best = Best(EarlyStopping.model_validate({"monitor": "val_gap", "mode": mode, "min_delta": delta, "patience": 2}))
    model = nn.Linear(1, 1)
    assert [best.offer(epoch, {"val_gap": value}, model) for epoch, value in enumerate(values, 1)] == kept


def test_a_monitor_that_the_validation_set_does_not_define_is_refused(train: Any, data: Data) -> None:
    one_class = data.val.take((data.val.targets == 0).nonzero().flatten())
    with pytest.raises(StageFailure, match=r"earlyStopping\.monitor: val_roc_auc_macro is not defined on the validation set"):
        train(on=replace(data, val=one_class), early_stopping={"monitor": "val_roc_auc_macro"})
