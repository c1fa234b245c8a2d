"""An MLflow client between whose calls and the store faults are put, and a training process that logs through one."""

import sys
from collections.abc import Callable, Iterator
from itertools import count, cycle
from pathlib import Path
from typing import Any

FAULTS = ("refused", "timed out", "answer lost", "429", "500")


class Unreliable:
    """Calls fail as `verdict` says: before the store hears of them, or after it has done them. "ok" lets them through."""

    def __init__(self, client: Any, verdict: Callable[[str], str]) -> None:
        self._client, self._verdict = client, verdict
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*args: object, **kwargs: object) -> Any:
            self.calls.append(name)
            verdict = self._verdict(name)
            if verdict not in ("ok", "answer lost"):
                raise _error(verdict)
            result = getattr(self._client, name)(*args, **kwargs)
            if verdict == "answer lost":
                raise TimeoutError("read timed out")
            return result

        return call


def _error(verdict: str) -> Exception:
    from mlflow.exceptions import MlflowException
    from mlflow.utils.rest_utils import get_error_code

    if verdict.isdigit():
        return MlflowException(f"API request failed with error code {verdict}", get_error_code(int(verdict)))
    return TimeoutError("connect timed out") if verdict == "timed out" else ConnectionError("connection refused")


def log_for_ever(uri: str, run_id: str, spool: Path, first: int) -> Iterator[int]:
    """Steps, each after its point is safe; every third request is done without an answer, every third is refused."""
    from mlflow.tracking import MlflowClient

    from dropout_trainer.train.tracking import Policy, Tracking

    verdicts = cycle(["ok", "answer lost", "refused"])
    client = Unreliable(MlflowClient(uri), lambda _: next(verdicts))
    tracking = Tracking(run_id, lambda: client, Policy(gather=0.001, between=0, pauses=(0.001, 0.001)), spool=spool)
    tracking.start()
    for step in count(first):
        tracking.metrics({"loss": 1 / step}, step)
        if not tracking.unsent(60)():
            yield step


if __name__ == "__main__":
    for done in log_for_ever(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])):
        print(done, flush=True)
