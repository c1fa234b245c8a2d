"""A training that was cut off goes on under the same run: its history has every step of every metric exactly once.

The store is MLflow's own, on SQLite. What cuts a training off here is an exception that nothing catches.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow import MlflowClient

from dropout_api.task import TrainTask
from dropout_trainer.train.precision import Step
from dropout_trainer.train.run import train
from dropout_trainer.train.telemetry import Telemetry
from dropout_trainer.train.tracking import Policy, Tracking

AT_ONCE = Policy(gather=0.001, between=0, pauses=(0.001, 0.001))
EPOCHS, STEPS = 6, 8
"""Steps of an epoch."""
ALWAYS = -1
SPEC: dict[str, Any] = {
    "model": {"factory": "mlp", "args": {"hidden": [8]}}, "data": {"factory": "sklearn", "args": {"name": "wine"}},
    "training": {"epochs": EPOCHS, "batchSize": 16}, "dropout": {"rate": 0.25},
}
Points = dict[str, list[tuple[int, float]]]


class Killed(BaseException):
    """The process is gone."""


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(strict)


class Store:
    """MLflow, which may be away."""

    def __init__(self, client: MlflowClient) -> None:
        self._client, self.away = client, False

    def __getattr__(self, name: str) -> Any:
        if self.away:
            raise ConnectionError("connection refused")
        return getattr(self._client, name)


def told(tracking: Tracking) -> None:
    """Waits until the store has everything."""
    assert tracking._pipeline.settle(60)


@pytest.fixture
def attempt(client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def once(
        run_id: str, number: int, every: int | None, killed_at: int = 0, away_from: int = 0, lasting: bool = False, **changes: Any,
    ) -> None:
        store, steps, update = Store(client), iter(range(1, 10_000)), Step.update
        store.away = away_from == ALWAYS
        pod = tmp_path / f"pod-{run_id}-{number}"
        tracking = Tracking(run_id, lambda: store, AT_ONCE, spool=(tmp_path if lasting else pod) / "tracking", lasting=lasting)

        def counted(self: Step) -> None:
            update(self)
            step = next(steps)
            if step == away_from:
                told(tracking)
                store.away = True
            if step == killed_at:
                if not store.away:
                    told(tracking)
                raise Killed

        folder = {"checkpoints": str(tmp_path / run_id)} if every else {}
        keeping = {"checkpoint": {"volumeClaim": "c", "everyEpochs": every}} if every else {}
        task = TrainTask.model_validate({
            "job": {"cluster": "c", "namespace": "team", "name": "x", "uid": "u"}, "attempt": number,
            "run": {"id": run_id, "experimentId": "1"}, "spec": SPEC | keeping | changes, **folder,
        })
        with monkeypatch.context() as patched:
            patched.setattr(Step, "update", counted)
            try:
                train(task, tracking, Telemetry(number, EPOCHS))
            except Killed:
                tracking.drain(0)

    return once


@pytest.fixture
def new_run(client: MlflowClient) -> Callable[[], str]:
    experiment = client.get_experiment_by_name("team.digits")
    assert experiment is not None
    return lambda: str(client.create_run(experiment.experiment_id).info.run_id)


def history(client: MlflowClient, run_id: str) -> Points:
    """Of each metric but the time, in the order of steps."""
    names = [name for name in client.get_run(run_id).data.metrics if not name.endswith("epoch_seconds")]
    return {name: sorted((point.step, point.value) for point in client.get_metric_history(run_id, name)) for name in names}


def test_whole_history(client: MlflowClient, new_run: Callable[[], str], attempt: Callable[..., None]) -> None:
    whole = new_run()
    attempt(whole, 1, None)
    expected = history(client, whole)
    assert [step for step, _ in expected["val_loss"]] == list(range(1, EPOCHS + 1))

    repeated = new_run()  # five epochs are told, the last checkpoint is of the fourth
    attempt(repeated, 1, 2, killed_at=5 * STEPS + 3)
    attempt(repeated, 2, 2)
    assert history(client, repeated) == expected

    for lasting in (False, True):  # in the checkpoint, in the spool beside it
        unsent = new_run()  # epochs 3 to 5 are saved, but MLflow has never heard of them
        attempt(unsent, 1, 1, killed_at=5 * STEPS + 3, away_from=2 * STEPS + 3, lasting=lasting)
        assert [step for step, _ in history(client, unsent)["val_loss"]] == [1, 2]
        attempt(unsent, 2, 1, lasting=lasting)
        assert history(client, unsent) == expected

    both = new_run()  # the spool has the third epoch twice: the second attempt goes on from the second, and MLflow is away throughout
    attempt(both, 1, 2, killed_at=3 * STEPS + 3, away_from=STEPS + 3, lasting=True)
    attempt(both, 2, 2, killed_at=2 * STEPS + 3, away_from=ALWAYS, lasting=True)
    assert [step for step, _ in history(client, both)["val_loss"]] == [1]
    attempt(both, 3, 2, lasting=True)
    assert history(client, both) == expected

    anew = new_run()  # without checkpoints it starts over
    attempt(anew, 1, None, killed_at=4 * STEPS + 3)
    attempt(anew, 2, None)
    assert history(client, anew) == expected
