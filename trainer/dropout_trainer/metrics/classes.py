"""Metrics of classifications. Averages over classes are taken over those that have rows in what is measured.

That is scikit-learn's `labels=unique(targets)`, and for recall its balanced accuracy. A class without rows has no recall, and to
count it as 0 would make a metric depend on how many classes a split happens to lack.
"""

from typing import Any

import torch
from torch import Tensor

from dropout_api.metrics import MetricName
from dropout_trainer.metrics import library

TOP_K = {MetricName.TOP_2_ACCURACY: 2, MetricName.TOP_3_ACCURACY: 3, MetricName.TOP_5_ACCURACY: 5}
AREAS = (MetricName.ROC_AUC_MACRO, MetricName.ROC_AUC_WEIGHTED)
WEIGHTED = (MetricName.F1_WEIGHTED, MetricName.ROC_AUC_WEIGHTED)


def overall(name: MetricName, answers: Tensor, targets: Tensor) -> float:
    """The metric of all rows: logits [N, classes] of float64 and class numbers [N], N >= 1. NaN where no class has a value."""
    if name is MetricName.ACCURACY:
        return float((answers.argmax(1) == targets).double().mean())
    if name in TOP_K:
        return _ratio(_counts(answers, targets, "micro", TOP_K[name])[0], len(targets))
    if name is MetricName.F1_MICRO:
        hits, false, _, missed, _ = _counts(answers, targets, "micro")
        return _ratio(2 * hits, 2 * hits + false + missed)
    values = by_class(name, answers, targets)
    rows = torch.bincount(targets, minlength=len(values)).double()
    weights = (rows if name in WEIGHTED else (rows > 0).double()).masked_fill(values.isnan(), 0)
    return float((values.nan_to_num() * weights).sum() / weights.sum())


def by_class(name: MetricName, answers: Tensor, targets: Tensor) -> Tensor:
    """Each class's value [classes], float64, for a metric that is an average of them. NaN for a class without rows and, of the area
    under the ROC curve, for one that all rows are of. A class that is never answered has precision 0."""
    if name in AREAS:
        return _areas(answers, targets)
    hits, false, _, missed, rows = _counts(answers, targets, "none").double().unbind(1)
    match name:
        case MetricName.F1_MACRO | MetricName.F1_WEIGHTED:
            values = 2 * hits / (2 * hits + false + missed)
        case MetricName.PRECISION_MACRO:
            values = hits / (hits + false).clamp(min=1)
        case MetricName.FALSE_NEGATIVE_RATE_MACRO:
            values = missed / rows
        case _:
            values = hits / rows
    return values.masked_fill(rows == 0, torch.nan)


def _areas(answers: Tensor, targets: Tensor) -> Tensor:
    """Of each class against the rest, by the softmax of the logits."""
    area, scores = library.load().classification.binary_auroc, answers.softmax(1)
    is_class = torch.nn.functional.one_hot(targets, answers.shape[1])
    rows = is_class.sum(0)
    defined = (rows > 0) & (rows < len(targets))
    values = torch.full_like(scores[0], torch.nan)
    for number in defined.nonzero().flatten().tolist():
        values[number] = area(scores[:, number], is_class[:, number], validate_args=False)
    return values


def _counts(answers: Tensor, targets: Tensor, average: str, top_k: int = 1) -> Tensor:
    """True positives, false positives, true negatives, false negatives and rows, [5] or of each class [classes, 5], as integers: ratios
    that torchmetrics makes of them are float32, where 9 of 10 is below a bar of 0.9."""
    count = library.load().classification.multiclass_stat_scores
    with library.exactly():
        found: Tensor = count(answers, targets, num_classes=answers.shape[1], average=average, top_k=top_k, validate_args=False)
    return found


def _ratio(part: Any, whole: Any) -> float:
    return float(part) / float(whole)
