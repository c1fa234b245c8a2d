from collections.abc import Callable

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, PERMISSION_DENIED

from dropout_api.names import ExitCode
from dropout_trainer.errors import StageFailure
from dropout_trainer.verify.patience import persist


def failing(times: int, error: Exception) -> Callable[[], str]:
    left = iter([error] * times)

    def step() -> str:
        for error in left:
            raise error
        return "done"

    return step


@pytest.mark.parametrize("error", [MlflowException("away", INTERNAL_ERROR), ConnectionError("refused"), TimeoutError("slow")])
def test_an_outage_is_waited_for(error: Exception) -> None:
    pauses: list[float] = []

    assert persist(failing(6, error), sleep=pauses.append) == "done"
    assert pauses == [0.5, 1, 2, 4, 8, 10]


def test_an_outage_without_end_becomes_a_stage_failure() -> None:
    with pytest.raises(StageFailure) as caught:
        persist(failing(10**6, ConnectionError("refused")), patience=0.1)

    assert (caught.value.reason, caught.value.exit_code) == ("TrackingUnavailable", ExitCode.TRACKING_UNAVAILABLE)


def test_a_refusal_is_not_asked_again() -> None:
    with pytest.raises(MlflowException, match="no right"):
        persist(failing(1, MlflowException("no right", PERMISSION_DENIED)), sleep=lambda _: pytest.fail("waited"))
