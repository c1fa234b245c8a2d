"""Two processes come to what one comes to: its losses but for rounding, its validation to the bit, with masks of their own.

Tolerance: 1e-5 of a loss after 21 steps. Sums of 16 rows are taken as two of 8, which moves the last bits of float32 (6e-8).
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from dropout_testing.ranks import Asked, Outcome, data, network, outcome
from safetensors.torch import load

from dropout_api.spec import TrainingJobSpec
from dropout_trainer.metrics.measure import names_for
from dropout_trainer.train.evaluating import EVAL_BATCH, evaluate
from dropout_trainer.train.objective import make_task
from dropout_trainer.train.seeds import derive

TOLERANCE = 1e-5
CPU = {"resourcesPerNode": {"limits": {"cpu": "1"}}}
SPEC: dict[str, Any] = {
    "model": {"factory": "dropout_testing.ranks:network"}, "data": {"factory": "dropout_testing.ranks:data"}, **CPU,
    "dropout": {"rate": 0.0, "implementation": "Native"},
    "training": {
        "epochs": 3, "batchSize": 16, "metrics": ["f1_macro"], "loss": {"classWeights": "Balanced", "labelSmoothing": 0.1},
        "gradientAccumulation": 2, "gradientClipNorm": 0.5, "scheduler": {"name": "Cosine"},
    },
}
"""Of 101 rows the last batch has 5: 3 for one process and 2 for the other. Of 1100 rows of validation the last batch has 76."""


def two(spec: dict[str, Any], out: Path) -> Outcome:
    result = outcome(Asked(spec | {"processesPerNode": 2}, str(out)))
    assert (result.code, result.report.get("reason")) == (0, "Trained"), result.log
    return result


@pytest.fixture(scope="module")
def without_dropout(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return two(SPEC, tmp_path_factory.mktemp("two") / "out")


def test_losses_are_those_of_one_process(without_dropout: Outcome, tmp_path: Path) -> None:
    one = outcome(Asked(SPEC, str(tmp_path / "one")))
    assert [step for step, _ in without_dropout.curve] == [step for step, _ in one.curve]
    for (_, mine), (_, theirs) in zip(without_dropout.curve, one.curve, strict=True):
        assert mine == pytest.approx(theirs, rel=TOLERANCE, abs=TOLERANCE)
    mine, theirs = load(without_dropout.weights), load(one.weights)
    assert all(torch.allclose(mine[name], theirs[name], atol=1e-4) for name in theirs)


def test_validation_is_to_the_bit_that_of_one_process(without_dropout: Outcome) -> None:
    spec = TrainingJobSpec.model_validate(SPEC)
    held = data(derive(spec.seed)["split"])
    model = network((8,), 3)
    model.load_state_dict(load(without_dropout.weights))
    task = make_task(held, spec.training.loss)
    torch.set_num_threads(1)
    score = evaluate(model, held.val, task, names_for(task, spec.training))
    told = next(values for _, values in reversed(without_dropout.curve) if "val_loss" in values)
    assert {f"val_{name}": value for name, value in score.metrics.items()}.items() <= told.items()
    assert len(held.val) % EVAL_BATCH


def test_each_draws_masks_of_its_own(tmp_path: Path) -> None:
    spec = SPEC | {"dropout": {"rate": 0.5}}
    two(spec, tmp_path / "two")
    first, second = ((tmp_path / "two" / f"mask-{rank}").read_text() for rank in "01")
    assert len(first) == len(second) == 8 * 16
    assert 0.3 < first.count("0") / len(first) < 0.7
    differing = sum(a != b for a, b in zip(first, second, strict=True))
    assert 0.3 < differing / len(first) < 0.7


def test_statistics_unused_weights_folds_and_early_stopping_keep_them_together(tmp_path: Path) -> None:
    training = {"epochs": 3, "batchSize": 16, "earlyStopping": {"patience": 1}, "crossValidation": {"folds": 2}}
    spec = SPEC | {"model": {"factory": "dropout_testing.ranks:normed"}, "training": training, "dropout": {}}
    first = two(spec, tmp_path / "first")
    assert "cv_val_loss_mean" in first.report["metrics"]
    again = two(spec, tmp_path / "again")
    assert (first.curve, first.weights) == (again.curve, again.weights)


def test_a_loss_that_is_not_finite_ends_both_for_one_reason(tmp_path: Path) -> None:
    data = {"factory": "dropout_testing.ranks:data", "args": {"poisoned": 1}}
    result = outcome(Asked(SPEC | {"data": data, "processesPerNode": 2}, str(tmp_path / "two")))
    assert (result.code, result.report["reason"]) == (71, "NonFiniteLoss"), result.log
    assert "in epoch 1, batch" in result.report["message"]
    assert "PeerLost" not in result.log
