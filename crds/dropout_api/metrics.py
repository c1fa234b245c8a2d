"""Names of quality metrics, one vocabulary for the loop, early stopping and quality bars; in MLflow `val_NAME` and `test_NAME`.

The averaging of several classes is part of a name, as in scikit-learn's scoring strings.
"""

from enum import StrEnum
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from dropout_api.model import Wire


class TaskKind(StrEnum):
    """What a model is trained for; it follows from the data's targets: int64 class numbers, or float32 values."""

    CLASSIFICATION = "Classification"
    REGRESSION = "Regression"
    """Also forecasting: several values a row."""


class MetricName(StrEnum):
    LOSS = "loss"
    ACCURACY = "accuracy"
    TOP_2_ACCURACY = "top_2_accuracy"
    TOP_3_ACCURACY = "top_3_accuracy"
    TOP_5_ACCURACY = "top_5_accuracy"
    F1_MICRO = "f1_micro"
    F1_MACRO = "f1_macro"
    F1_WEIGHTED = "f1_weighted"
    PRECISION_MACRO = "precision_macro"
    RECALL_MACRO = "recall_macro"
    """The mean of the classes' recalls, also known as balanced accuracy."""
    ROC_AUC_MACRO = "roc_auc_macro"
    """One class against the rest."""
    ROC_AUC_WEIGHTED = "roc_auc_weighted"
    FALSE_NEGATIVE_RATE_MACRO = "false_negative_rate_macro"
    """1 − recall_macro; with `class`, the share of that class that was missed."""
    MAE = "mae"
    RMSE = "rmse"
    MAPE = "mape"
    """Mean of |error| / |target|, as a fraction."""
    R2 = "r2"
    INTERVAL_COVERAGE = "interval_coverage"
    """Share of targets between the lowest and the highest of `training.loss.quantiles`."""


ANY_TASK = (MetricName.LOSS,)
REGRESSION = (MetricName.MAE, MetricName.RMSE, MetricName.MAPE, MetricName.R2, MetricName.INTERVAL_COVERAGE)
CLASSIFICATION = tuple(name for name in MetricName if name not in (*ANY_TASK, *REGRESSION))
OF_TASK = {TaskKind.CLASSIFICATION: (*ANY_TASK, *CLASSIFICATION), TaskKind.REGRESSION: (*ANY_TASK, *REGRESSION)}
BY_CLASS = tuple(
    name for name in CLASSIFICATION if name.value.endswith("_macro")
)
"""Metrics that one class has by itself; `class` in a quality bar asks for that one instead of their mean."""
SMALLER_IS_BETTER = (MetricName.LOSS, MetricName.FALSE_NEGATIVE_RATE_MACRO, MetricName.MAE, MetricName.RMSE, MetricName.MAPE)
GAP = "gap"
MONITORS = tuple(f"val_{name}" for name in (*(metric.value for metric in MetricName), GAP))


def smaller_is_better(monitor: str) -> bool:
    """Of a name in MONITORS."""
    return monitor == f"val_{GAP}" or MetricName(monitor.removeprefix("val_")) in SMALLER_IS_BETTER


def _known(monitor: str) -> str:
    if monitor not in MONITORS:
        raise ValueError(f"there is no '{monitor}'; use one of {', '.join(MONITORS)}")
    return monitor


Monitor = Annotated[str, AfterValidator(_known), Field(json_schema_extra={"enum": list(MONITORS)})]


class QualityBar(Wire):
    """A bound on a metric that the verifier computes itself from the exported program on the held-out test set."""

    metric: MetricName
    class_name: Annotated[str | None, Field(alias="class", min_length=1, max_length=200)] = None
    """Of this class alone, by its name or number; for the metrics whose names end in _macro."""
    segment: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """On the rows of this segment alone, by the value that they have in the data's segment column."""
    baseline: Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z][a-z0-9-]*$")] | None = None
    """An alias of the registered model, as `champion`. The bounds then hold for the difference to the version that it points to, measured
    on the same rows: `min: -0.01` lets accuracy fall by one hundredth. Without such a version the bar is not asked."""
    min: Annotated[float, Field(ge=-1e9, le=1e9)] | None = None
    """Smallest value that passes."""
    max: Annotated[float, Field(ge=-1e9, le=1e9)] | None = None
    """Largest value that passes."""

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if self.min is None and self.max is None:
            raise ValueError(f"gate bar for {self.metric}: set min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"gate bar for {self.metric}: min {self.min} is above max {self.max}")
        return self

    @model_validator(mode="after")
    def _class_has_the_metric(self) -> Self:
        if self.class_name is not None and self.metric not in BY_CLASS:
            raise ValueError(f"gate bar for {self.metric}: class {CLASS_FITS}")
        return self


CLASS_FITS = f"goes with {', '.join(BY_CLASS)}"
