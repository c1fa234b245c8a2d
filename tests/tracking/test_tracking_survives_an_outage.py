"""MLflow goes away and comes back: training's calls never wait, nothing is lost, nothing is there twice.

The store is MLflow's own, on SQLite; only the calls between are made to fail.
"""

import json
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from dropout_api.candidate import PlanRow
from dropout_api.dropout import DropoutKind
from dropout_api.names import ExitCode
from dropout_trainer.errors import StageFailure
from dropout_trainer.train.facts import plan_table
from dropout_trainer.train.tracking import POINTS_PER_BATCH, Points, Tracking, _batch

PAUSE = (0.001, 0.001)
LONG = 60.0
pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow and what it imports warn of themselves


class Unreliable:
    """A client whose calls fail as `verdict` says: before the store hears of them, or after it has done them."""

    def __init__(self, client: Any, verdict: Callable[[str], str]) -> None:
        self._client, self._verdict = client, verdict
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*args: object, **kwargs: object) -> Any:
            self.calls.append(name)
            verdict = self._verdict(name)
            if verdict == "refused":
                raise ConnectionError("connection refused")
            result = getattr(self._client, name)(*args, **kwargs)
            if verdict == "answer lost":
                raise TimeoutError("read timed out")
            return result

        return call


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from mlflow.tracking import MlflowClient

    folder = tmp_path_factory.mktemp("mlflow")
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    client.create_experiment("tests", artifact_location=f"file://{folder}/artifacts")
    return client


@pytest.fixture
def run_id(store: Any) -> str:
    experiment = store.get_experiment_by_name("tests").experiment_id
    return str(store.create_run(experiment).info.run_id)


def test_every_point_is_there_exactly_once_after_an_outage(store: Any, run_id: str) -> None:
    up, tried_twice = Event(), Event()
    up.set()
    failures = 0

    def verdict(_: str) -> str:
        nonlocal failures
        if up.is_set():
            return "ok"
        failures += 1
        if failures >= 2:
            tried_twice.set()
        return "answer lost" if failures == 1 else "refused"

    tracking = Tracking(run_id, lambda: Unreliable(store, verdict), PAUSE)
    tracking.start()
    for epoch in range(1, 31):
        if epoch == 11:
            up.clear()
        if epoch == 21:
            assert tried_twice.wait(LONG)
            assert not tracking.healthy
            up.set()
        tracking.metrics({"val_loss": 1 / epoch, "val_gap": 0.5}, epoch)
    assert tracking.drain(LONG) == 0
    assert tracking.healthy
    for name in ("val_loss", "val_gap"):
        history = store.get_metric_history(run_id, name)
        assert sorted(point.step for point in history) == list(range(1, 31))
    assert store.get_metric_history(run_id, "val_loss")[9].value == pytest.approx(0.1)


def test_whatever_waits_goes_in_one_request(store: Any, run_id: str) -> None:
    client = Unreliable(store, lambda _: "ok")
    tracking = Tracking(run_id, lambda: client, PAUSE)
    for epoch in range(1, 51):
        tracking.metrics({"val_loss": 0.5}, epoch)
    tracking.start()
    assert tracking.drain(LONG) == 0
    assert client.calls == ["log_batch"]


def test_requests_stay_within_mlflows_limit() -> None:
    waiting = [Points(step, 0, tuple((f"m{number}", 0.0) for number in range(7))) for step in range(500)]
    assert len(_batch(waiting)) == POINTS_PER_BATCH // 7
    assert len(_batch([Points(1, 0, tuple((f"m{number}", 0.0) for number in range(2000)))])) == 1


def test_params_beyond_a_requests_limit_and_odd_names_arrive(store: Any, run_id: str) -> None:
    tracking = Tracking(run_id, lambda: store, PAUSE)
    tracking.start()
    tracking.params({f"dropout.layer{number}.rate": 0.5 for number in range(250)} | {"dropout.(model).rate": 0.1, "long": "x" * 7000})
    assert tracking.drain(LONG) == 0
    params = store.get_run(run_id).data.params
    assert len(params) == 252
    assert params["dropout._model_.rate"] == "0.1"
    assert len(params["long"]) == 6000


def test_a_second_attempts_changed_param_loses_no_other(store: Any, run_id: str) -> None:
    store.log_param(run_id, "version.torch", "old")
    tracking = Tracking(run_id, lambda: store, PAUSE)
    tracking.start()
    tracking.params({"seed": 42, "version.torch": "new", "device": "cpu"})
    tracking.metrics({"val_loss": 0.5}, 1)
    assert tracking.drain(LONG) == 0
    run = store.get_run(run_id)
    assert run.data.params == {"seed": "42", "version.torch": "old", "device": "cpu"}
    assert run.data.metrics == {"val_loss": 0.5}
    assert run.info.status == "RUNNING"


def test_the_plan_is_a_table_in_the_runs_pages(store: Any, run_id: str) -> None:
    tracking = Tracking(run_id, lambda: store, PAUSE)
    tracking.start()
    row = PlanRow(layer="drop", kind=DropoutKind.STANDARD, type="Dropout", rate=0.5, why="model")
    tracking.table("dropout_plan.json", *plan_table([row]))
    assert tracking.drain(LONG) == 0
    table = json.loads(Path(store.download_artifacts(run_id, "dropout_plan.json")).read_text())
    cells = dict(zip(table["columns"], table["data"][0], strict=True))
    assert {name: cells[name] for name in ("layer", "kind", "type", "rate", "why")} == {
        "layer": "drop", "kind": "Standard", "type": "Dropout", "rate": 0.5, "why": "model"}
    assert all(isinstance(cell, str | float) for cell in cells.values())
    assert json.loads(store.get_run(run_id).data.tags["mlflow.loggedArtifacts"]) == [{"path": "dropout_plan.json", "type": "table"}]


def test_an_upload_survives_an_outage(store: Any, run_id: str, tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a", "b")]
    for file in files:
        file.write_text(file.name)
    verdicts = iter(["ok", "refused", "answer lost", "ok", "ok"])
    Tracking(run_id, lambda: Unreliable(store, lambda _: next(verdicts)), PAUSE).upload(files, LONG)
    assert sorted(file.path for file in store.list_artifacts(run_id, "candidate")) == ["candidate/a", "candidate/b"]


def test_an_upload_that_cannot_succeed_in_time_is_told(tmp_path: Path) -> None:
    ticks = iter(range(0, 10_000, 100))
    tracking = Tracking("0" * 32, lambda: Unreliable(None, lambda _: "refused"), PAUSE)
    with pytest.raises(StageFailure, match=r"eval.pt2 could not be uploaded to MLflow for 300 s: ConnectionError") as end:
        tracking.upload([tmp_path / "eval.pt2"], 300, clock=lambda: float(next(ticks)))
    assert end.value.exit_code == ExitCode.TRACKING_UNAVAILABLE


def test_a_server_that_never_comes_back_ends_no_training() -> None:
    tracking = Tracking("0" * 32, lambda: Unreliable(None, lambda _: "refused"), PAUSE)
    tracking.start()
    tracking.metrics({"val_loss": 0.5}, 1)
    tracking.tag("a", "b")
    assert tracking.drain(0.05) == 2
