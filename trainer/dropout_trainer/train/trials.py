"""Cross-validation: trainings that come before the one whose model is kept, and what they tell together.

Kohavi: A Study of Cross-Validation and Bootstrap for Accuracy Estimation and Model Selection, IJCAI 1995.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from dropout_api.names import ExitCode
from dropout_api.training import CrossValidation, TrainingSpec
from dropout_trainer.data import MIN_ROWS, Data, Split
from dropout_trainer.errors import StageFailure
from dropout_trainer.train.seeds import derive, repeated


@dataclass(frozen=True)
class Trial:
    """One of them."""

    number: int
    """From 1."""
    seed: int
    fold: int | None
    """From 0; None when the data's own split stays."""

    @property
    def prefix(self) -> str:
        """Of its metrics in MLflow."""
        return f"trial_{self.number}/"


def trials(spec: CrossValidation | None, seed: int) -> list[Trial]:
    """In order: each repeat, and in it each fold."""
    if spec is None:
        return []
    folds = range(spec.folds) if spec.folds else [None]
    pairs = [(repeated(seed, repeat), fold) for repeat in range(spec.repeats) for fold in folds]
    return [Trial(number, *pair) for number, pair in enumerate(pairs, 1)]


def all_epochs(spec: TrainingSpec) -> int:
    """Of the trials and of the training whose model is kept, at most."""
    return spec.epochs * (1 + len(trials(spec.cross_validation, 0)))


def data_of(trial: Trial, data: Data, folds: int) -> Data:
    """`data` with the trial's fold as validation set and the other folds as training set; the test set stays out of it.

    Folds are parts of training and validation rows together, in an order that the trial's seed decides, and differ in size by one row
    at most. Raises StageFailure when a fold would have fewer than MIN_ROWS rows.
    """
    if trial.fold is None:
        return data
    whole = _joined(data.train, data.val)
    if len(whole) < folds * MIN_ROWS:
        wanted = f"training and validation set have {len(whole)} rows together, enough for {len(whole) // MIN_ROWS} folds"
        raise StageFailure("SpecInvalid", f"spec.training.crossValidation.folds: is {folds}, but {wanted}", ExitCode.SPEC_INVALID)
    order = torch.randperm(len(whole), generator=torch.Generator().manual_seed(derive(trial.seed)["split"]))
    parts = list(torch.tensor_split(order, folds))
    held_out = parts.pop(trial.fold)
    return replace(data, train=whole.take(torch.cat(parts)), val=whole.take(held_out))


def summary(kept: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean and sample standard deviation over trials of each validation metric, as `cv_val_loss_mean` and `cv_val_loss_std`.

    NaN of a metric that is not defined in every trial: a mean over some would hide that it is of fewer.
    """
    result: dict[str, float] = {}
    for name in kept[0]:
        if name.startswith("val_"):
            values = [metrics[name] for metrics in kept]
            defined = all(map(math.isfinite, values))  # statistics.stdev raises AttributeError at NaN
            told = (statistics.fmean(values), statistics.stdev(values)) if defined else (math.nan, math.nan)
            result |= {f"cv_{name}_mean": told[0], f"cv_{name}_std": told[1]}
    return result


def _joined(first: Split, second: Split) -> Split:
    segments = None if first.segments is None or second.segments is None else torch.cat([first.segments, second.segments])
    return Split(torch.cat([first.inputs, second.inputs]), torch.cat([first.targets, second.targets]), segments)
