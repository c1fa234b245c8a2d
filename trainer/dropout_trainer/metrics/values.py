"""Metrics of values. Where a row has several values, the mean of each value's own metric, as scikit-learn's `uniform_average`."""

from torch import Tensor

from dropout_api.candidate import Task
from dropout_api.metrics import MetricName
from dropout_trainer.metrics import library
from dropout_trainer.metrics.losses import point_answers, quantile_answers

MIN_ROWS_R2 = 2


def overall(task: Task, name: MetricName, answers: Tensor, targets: Tensor) -> float:
    """The metric of all rows: answers [N, outputs] and targets [N, values], both float64, N >= 1. Of quantiles the median is judged,
    but for the coverage. In the targets' own units, or their square root of squares; MAPE, R² and coverage have none.

    MAPE takes a target nearer to 0 than 1.17e-6 for that (as torchmetrics; scikit-learn takes 2.2e-16): with targets of 0 it is huge,
    and no metric to judge by. R² of values that are all the same is 1 when all are met and else 0; of a single row it is NaN.
    """
    points = point_answers(task, answers)
    match name:
        case MetricName.MAE:
            return float((points - targets).abs().mean())
        case MetricName.RMSE:
            error = library.load().regression.mean_squared_error
            return float(error(points, targets, squared=False, num_outputs=task.values).mean())
        case MetricName.MAPE:
            return float(library.load().regression.mean_absolute_percentage_error(points, targets))
        case MetricName.R2:
            return _r2(points, targets) if len(targets) >= MIN_ROWS_R2 else float("nan")
        case MetricName.INTERVAL_COVERAGE:
            levels = quantile_answers(task, answers)
            return float(((levels[..., 0] <= targets) & (targets <= levels[..., -1])).double().mean())
        case _:
            raise ValueError(f"{name} is no metric of values")


def _r2(points: Tensor, targets: Tensor) -> float:
    """In units of the targets' own deviation around their mean: torchmetrics takes sums of squares below 1e-4 for zero."""
    mean, scale = targets.mean(0), targets.std(0)
    scale = scale.where(scale > 0, 1)
    return float(library.load().regression.r2_score((points - mean) / scale, (targets - mean) / scale, multioutput="uniform_average"))
