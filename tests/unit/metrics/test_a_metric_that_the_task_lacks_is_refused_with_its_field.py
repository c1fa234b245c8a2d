import pytest

from dropout_api.candidate import Task
from dropout_api.metrics import MetricName
from dropout_api.names import ExitCode
from dropout_api.training import TrainingSpec
from dropout_trainer.errors import StageFailure
from dropout_trainer.metrics.measure import names_for

CLASSES, VALUES = Task(outputs=3), Task(kind="Regression", outputs=1, loss="MSE", deviation=[1.0])
INTERVAL = Task(kind="Regression", outputs=2, loss="Quantile", quantiles=[0.1, 0.5], deviation=[1.0])


@pytest.mark.parametrize(("task", "training", "message"), [
    (VALUES, {"metrics": ["mae", "f1_macro"]},
     r"spec\.training\.metrics\[1\]: f1_macro does not go with Regression; use one of loss, mae, rmse, mape, r2, interval_coverage"),
    (CLASSES, {"metrics": ["mape"]}, r"spec\.training\.metrics\[0\]: mape does not go with Classification; use one of loss, accuracy, "),
    (VALUES, {"early_stopping": {"monitor": "val_accuracy"}}, r"spec\.training\.earlyStopping\.monitor: accuracy does not go with"),
    (VALUES, {"metrics": ["interval_coverage"]}, r"interval_coverage needs an interval; set spec\.training\.loss to Quantile"),
    (CLASSES, {"metrics": ["top_5_accuracy"]}, r"top_5_accuracy needs 5 classes, but there are 3; use accuracy"),
])
def test_and_the_remedy(task: Task, training: dict[str, object], message: str) -> None:
    with pytest.raises(StageFailure, match=message) as end:
        names_for(task, TrainingSpec.model_validate(training))
    assert (end.value.reason, end.value.exit_code) == ("SpecInvalid", ExitCode.SPEC_INVALID)


@pytest.mark.parametrize(("task", "training", "names"), [
    (CLASSES, {}, ["loss", "accuracy"]),
    (VALUES, {}, ["loss", "mae"]),
    (CLASSES, {"metrics": ["accuracy", "f1_macro"], "early_stopping": {"monitor": "val_f1_macro"}}, ["loss", "accuracy", "f1_macro"]),
    (CLASSES, {"early_stopping": {"monitor": "val_roc_auc_macro"}}, ["loss", "accuracy", "roc_auc_macro"]),
    (CLASSES, {"early_stopping": {"monitor": "val_gap"}}, ["loss", "accuracy"]),
    (INTERVAL, {"metrics": ["interval_coverage"]}, ["loss", "mae", "interval_coverage"]),
])
def test_while_each_that_it_has_is_measured_once(task: Task, training: dict[str, object], names: list[str]) -> None:
    assert names_for(task, TrainingSpec.model_validate(training)) == tuple(map(MetricName, names))
