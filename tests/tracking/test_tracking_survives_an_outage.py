"""MLflow goes away and comes back: training's calls never wait, nothing is lost, nothing is there twice.

The store is MLflow's own, on SQLite; only the calls between are made to fail.
"""

import gc
import json
import os
import statistics
import subprocess
import sys
from dataclasses import replace
from itertools import chain, count, cycle
from pathlib import Path
from threading import Event
from time import perf_counter
from typing import Any

import numpy as np
import pytest
from dropout_testing.unreliable import FAULTS, Unreliable

from dropout_api.candidate import PlanRow
from dropout_api.dropout import DropoutKind
from dropout_api.names import ExitCode
from dropout_trainer.errors import StageFailure
from dropout_trainer.train.facts import plan_table
from dropout_trainer.train.points import Points
from dropout_trainer.train.tracking import Machine, Policy, Tracking
from dropout_trainer.train.tracking.writes import POINTS_PER_BATCH, request_of

AT_ONCE = Policy(gather=0.001, between=0, pauses=(0.001, 0.001))
LONG = 60.0
SOAK = "SOAK" in os.environ
pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow and what it imports warn of themselves


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from mlflow.tracking import MlflowClient

    folder = tmp_path_factory.mktemp("mlflow")
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    client.create_experiment("tests", artifact_location=f"file://{folder}/artifacts")
    client.uri = f"sqlite:///{folder}/mlflow.db"
    return client


@pytest.fixture
def run_id(store: Any) -> str:
    experiment = store.get_experiment_by_name("tests").experiment_id
    return str(store.create_run(experiment).info.run_id)


@pytest.fixture(params=[True, False], ids=["spool", "memory"])
def spool(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    return tmp_path / "spool" if request.param else None


@pytest.mark.parametrize("fault", FAULTS)
def test_every_point_is_there_exactly_once_after_an_outage(store: Any, run_id: str, spool: Path | None, fault: str) -> None:
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
        return fault

    tracking = Tracking(run_id, lambda: Unreliable(store, verdict), AT_ONCE, spool=spool)
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
    assert spool is None or not list(spool.iterdir())


@pytest.mark.timeout(1200)
def test_a_hundred_metrics_a_second_cost_no_step_while_mlflow_is_away(store: Any, run_id: str, tmp_path: Path) -> None:
    """A minute's worth as fast as it goes; ten minutes by the clock when SOAK is set."""
    away, tried, seconds = Event(), Event(), 600 if SOAK else 60
    fault, ticks = cycle(FAULTS), count(1_000_000_000_000_000_000, 10_000_000)
    policy = Policy() if SOAK else Policy(pauses=(0.2, 0.2))

    def verdict(_: str) -> str:
        tried.set()
        return next(fault) if away.is_set() else "ok"

    tracking = Tracking(run_id, lambda: Unreliable(store, verdict), policy, spool=tmp_path, clock=lambda: next(ticks))
    tracking.start()
    times: dict[bool, list[float]] = {False: [], True: []}
    matrix, steps, most, started = np.random.default_rng(0).random((128, 128)), count(1), 0, perf_counter()
    for second in range(seconds + 20):
        (away.set if 10 <= second < seconds + 10 else away.clear)()
        for _ in range(100):
            begin, step = perf_counter(), next(steps)
            tracking.metrics({"loss": float((matrix @ matrix).sum())}, step)
            times[away.is_set()].append(perf_counter() - begin)
            if SOAK:
                Event().wait(started + step / 100 - perf_counter())
        assert not tracking.unsent(LONG)()
        if second % 10 == 0:
            tried.clear()
            assert not away.is_set() or tried.wait(LONG)  # the next request is in memory now
            most = max(most, sum(isinstance(held, Points) for held in gc.get_objects()))
    assert tracking.drain(LONG) == 0
    history = store.get_metric_history(run_id, "loss")
    assert sorted((point.step, point.timestamp) for point in history) == [(step, 10**12 + 10 * step - 10) for step in range(1, next(steps))]
    assert POINTS_PER_BATCH / 2 < most < 2 * POINTS_PER_BATCH, most
    assert statistics.median(times[True]) < 1.25 * statistics.median(times[False])


def test_a_request_that_is_never_answered_stops_nobody(store: Any, run_id: str, tmp_path: Path) -> None:
    asked, answer = Event(), Event()

    def hang(_: str) -> str:
        asked.set()
        answer.wait(LONG)
        return "ok"

    tracking = Tracking(run_id, lambda: Unreliable(store, hang), AT_ONCE, spool=tmp_path)
    tracking.start()
    tracking.metrics({"val_loss": 0.5}, 1)
    assert asked.wait(LONG)
    for epoch in range(2, 5001):
        tracking.metrics({"val_loss": 0.5}, epoch)
    assert not tracking.unsent(LONG)()
    answer.set()
    assert tracking.drain(LONG) == 0
    assert len(store.get_metric_history(run_id, "val_loss")) == 5000


def test_what_killed_processes_leave_is_sent_once_and_in_order_by_the_next(store: Any, run_id: str, tmp_path: Path) -> None:
    safe = 0
    for kill_after in (30, 70):
        command = [sys.executable, "-W", "ignore", "-m", "dropout_testing.unreliable", store.uri, run_id, str(tmp_path), str(safe + 1)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                safe = int(line)
                if safe >= kill_after:
                    process.kill()
                    break
            safe = max([safe, *map(int, process.stdout)])
        assert list((tmp_path / run_id).glob("*.jsonl"))
    client = Unreliable(store, lambda _: "ok")
    tracking = Tracking(run_id, lambda: client, AT_ONCE, spool=tmp_path)
    tracking.start()
    tracking.metrics({"loss": 0.0}, 1000)
    assert tracking.drain(LONG) == 0
    history = [point.step for point in sorted(store.get_metric_history(run_id, "loss"), key=lambda point: point.timestamp)]
    assert [step for step in dict.fromkeys(history) if step <= safe] == list(range(1, safe + 1))
    assert history[-1] == 1000
    assert len(history) - len(set(history)) <= 1  # the step in which a process died, which the next has trained again
    assert not (tmp_path / run_id).exists()


def test_what_a_training_leaves_that_does_not_wait_is_sent_by_the_next(store: Any, run_id: str, tmp_path: Path) -> None:
    first = Tracking(run_id, lambda: Unreliable(None, lambda _: "refused"), AT_ONCE, spool=tmp_path)
    first.start()
    for epoch in range(1, 101):
        first.metrics({"val_loss": 0.5}, epoch)
    first.tag("a", "b")
    assert first.drain(0) == 101
    second = Tracking(run_id, lambda: store, AT_ONCE, spool=tmp_path)
    second.start()
    assert second.drain(LONG) == 0
    assert sorted(point.step for point in store.get_metric_history(run_id, "val_loss")) == list(range(1, 101))
    assert store.get_run(run_id).data.tags["a"] == "b"


def test_steps_trained_again_after_a_checkpoint_are_recorded_once(store: Any, run_id: str, spool: Path | None) -> None:
    """The first process records seven epochs, of which a spool holds the last two back; the second goes on from the fourth's checkpoint."""
    away, refused = Event(), Event()

    def verdict(_: str) -> str:
        if away.is_set():
            refused.set()
        return "refused" if away.is_set() else "ok"

    first = Tracking(run_id, lambda: Unreliable(store, verdict), AT_ONCE, spool=spool)
    first.start()
    for epoch in range(1, 8):
        if epoch == 6 and spool:
            away.set()
        first.metrics({"val_loss": 1.0}, epoch)
    assert not spool or refused.wait(LONG)  # no earlier request is on its way
    first.drain(0 if spool else LONG)
    second = Tracking(run_id, lambda: store, AT_ONCE, spool=spool)
    second.take_up([])
    second.start()
    for epoch in range(5, 11):
        second.metrics({"val_loss": 2.0, "added": 3.0}, epoch)
    second.metrics({"test_loss": 4.0}, 3)
    assert second.drain(LONG) == 0
    history = sorted(store.get_metric_history(run_id, "val_loss"), key=lambda point: point.step)
    assert [(point.step, point.value) for point in history] == [(epoch, 1.0 if epoch < 8 else 2.0) for epoch in range(1, 11)]
    assert sorted(point.step for point in store.get_metric_history(run_id, "added")) == list(range(5, 11))
    assert len(store.get_metric_history(run_id, "test_loss")) == 1


def test_a_process_that_dies_amid_steps_trained_again_leaves_none_of_them_twice(store: Any, run_id: str, tmp_path: Path) -> None:
    """MLflow has told the second process what it has, and takes nothing; the third finds the steps trained again in the spool."""
    first = Tracking(run_id, lambda: store, AT_ONCE, spool=tmp_path)
    first.start()
    for epoch in range(1, 6):
        first.metrics({"val_loss": 1.0}, epoch)
    assert first.drain(LONG) == 0
    asked = Event()

    def verdict(call: str) -> str:
        if call == "log_batch":
            asked.set()
        return "refused" if call == "log_batch" else "ok"

    second = Tracking(run_id, lambda: Unreliable(store, verdict), AT_ONCE, spool=tmp_path)
    second.take_up([])
    second.start()
    for epoch in range(4, 7):
        second.metrics({"val_loss": 2.0}, epoch)
    assert asked.wait(LONG)
    assert second.drain(0) == 3
    third = Tracking(run_id, lambda: store, AT_ONCE, spool=tmp_path)
    third.take_up([])
    third.start()
    for epoch in range(5, 8):
        third.metrics({"val_loss": 3.0}, epoch)
    assert third.drain(LONG) == 0
    history = sorted((point.step, point.value) for point in store.get_metric_history(run_id, "val_loss"))
    assert history == [(1, 1.0), (2, 1.0), (3, 1.0), (4, 1.0), (5, 1.0), (6, 2.0), (7, 3.0)]


@pytest.mark.parametrize(("lasting", "disk", "carried"), [(True, 4000, 0), (True, 0, 30), (False, 4000, 30), (False, 0, 30)])
def test_a_checkpoint_carries_what_the_next_process_would_not_find(
    store: Any, run_id: str, tmp_path: Path, lasting: bool, disk: int, carried: int,
) -> None:
    """That process begins in a folder of its own unless the spool lasts. MLflow has taken more than it has confirmed."""
    verdicts, refused = chain(["ok", "answer lost"], cycle(["refused"])), Event()

    def verdict(_: str) -> str:
        if (said := next(verdicts)) == "refused":
            refused.set()
        return said

    policy = replace(AT_ONCE, disk=disk)
    first = Tracking(run_id, lambda: Unreliable(store, verdict), policy, spool=tmp_path / "first", lasting=lasting)
    first.metrics({"val_loss": 0.0}, 0)
    first.start()
    assert first._pipeline.settle(LONG)
    for epoch in range(1, 31):
        first.metrics({"val_loss": 1 / epoch}, epoch)
    unsent = first.unsent()
    first.metrics({"val_loss": 0.5}, 31)  # which the training that goes on from there makes anew
    points = unsent()
    assert [point.step for point in points] == list(range(31 - carried, 31))
    assert refused.wait(LONG)  # what MLflow has taken without an answer is in it: that process has died, and sends nothing now
    first.drain(0)
    second = Tracking(run_id, lambda: store, policy, spool=tmp_path / ("first" if lasting else "second"), lasting=lasting)
    second.take_up(points)
    second.start()
    second.metrics({"val_loss": 0.5}, 31)
    assert second.drain(LONG) == 0
    assert sorted(point.step for point in store.get_metric_history(run_id, "val_loss")) == list(range(32))


def test_a_disk_that_hangs_stops_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / ("0" * 32)
    folder.mkdir()
    os.mkfifo(folder / "lock")  # to open it waits for a reader that never comes
    tracking = Tracking("0" * 32, lambda: Unreliable(None, lambda _: "refused"), AT_ONCE, spool=tmp_path)
    tracking.start()
    tracking.metrics({"val_loss": 0.5}, 1)
    assert tracking.unsent(0.01)() == []
    assert "saved without it" in caplog.text
    assert tracking.drain(0.01) >= 1


def test_a_folder_that_cannot_be_used_is_said_once_and_memory_serves(
    store: Any, run_id: str, tmp_path: Path, caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "file").touch()
    tracking = Tracking(run_id, lambda: store, AT_ONCE, spool=tmp_path / "file")
    tracking.start()
    for epoch in range(1, 31):
        tracking.metrics({"val_loss": 0.5}, epoch)
        tracking.unsent(LONG)()
    assert tracking.drain(LONG) == 0
    assert len(store.get_metric_history(run_id, "val_loss")) == 30
    assert caplog.text.count("cannot be spooled") == 1


def test_two_processes_never_share_a_spool(store: Any, run_id: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first, second = (Tracking(run_id, lambda: store, AT_ONCE, spool=tmp_path) for _ in range(2))
    first.start()
    first.metrics({"val_loss": 0.5}, 1)
    assert not first.unsent(LONG)()
    second.start()
    second.metrics({"val_loss": 0.5}, 2)
    assert [second.drain(LONG), first.drain(LONG)] == [0, 0]
    assert sorted(point.step for point in store.get_metric_history(run_id, "val_loss")) == [1, 2]
    assert "cannot be spooled" in caplog.text


@pytest.mark.parametrize(("disk", "fits"), [(0, 0), (4000, 80)])
def test_what_finds_no_room_anywhere_is_counted_and_the_rest_arrives(
    store: Any, run_id: str, tmp_path: Path, disk: int, fits: int, caplog: pytest.LogCaptureFixture,
) -> None:
    away = Event()
    away.set()
    policy = replace(AT_ONCE, memory=200, disk=disk)
    tracking = Tracking(run_id, lambda: Unreliable(store, lambda _: "refused" if away.is_set() else "ok"), policy, spool=tmp_path)
    tracking.start()
    for epoch in range(1, 1001):
        tracking.metrics({"val_loss": 0.5}, epoch)
        if epoch % 20 == 0:
            tracking.unsent(LONG)()
    lost = tracking.lost
    assert 1000 - lost == 200 + fits
    away.clear()
    assert tracking.drain(LONG) == lost
    assert sorted(point.step for point in store.get_metric_history(run_id, "val_loss")) == list(range(1, 1001 - lost))
    assert caplog.text.count("are lost") == 1


def test_whatever_waits_goes_in_one_request(store: Any, run_id: str) -> None:
    client = Unreliable(store, lambda _: "ok")
    tracking = Tracking(run_id, lambda: client, AT_ONCE)
    for epoch in range(1, 51):
        tracking.metrics({"val_loss": 0.5}, epoch)
    tracking.start()
    assert tracking.drain(LONG) == 0
    assert client.calls == ["log_batch"]


def test_requests_stay_within_mlflows_limit(store: Any, run_id: str) -> None:
    waiting = [Points(step, 0, tuple((f"m{number}", 0.0) for number in range(7))) for step in range(500)]
    assert len(request_of(waiting)) == POINTS_PER_BATCH // 7
    tracking = Tracking(run_id, lambda: store, AT_ONCE)
    tracking.start()
    tracking.metrics({f"m{number}": 0.0 for number in range(2 * POINTS_PER_BATCH)}, 1)
    assert tracking.drain(LONG) == 0
    assert len(store.get_run(run_id).data.metrics) == 2 * POINTS_PER_BATCH


@pytest.mark.parametrize("name", ["f1@k", "a//b", "../up", "/root", ".", "..", "x" * 300, "naïve/é", "tail/"])
def test_no_name_of_a_metric_makes_mlflow_refuse_its_companions(store: Any, run_id: str, name: str) -> None:
    tracking = Tracking(run_id, lambda: store, AT_ONCE)
    tracking.metrics({name: float("nan"), "companion": float("inf")}, 1)
    tracking.start()
    assert tracking.drain(LONG) == 0
    assert len(store.get_run(run_id).data.metrics) == 2


def test_params_beyond_a_requests_limit_and_odd_names_arrive(store: Any, run_id: str) -> None:
    tracking = Tracking(run_id, lambda: store, AT_ONCE)
    tracking.start()
    tracking.params({f"dropout.layer{number}.rate": 0.5 for number in range(250)} | {"dropout.(model).rate": 0.1, "long": "x" * 7000})
    assert tracking.drain(LONG) == 0
    params = store.get_run(run_id).data.params
    assert len(params) == 252
    assert params["dropout._model_.rate"] == "0.1"
    assert len(params["long"]) == 6000


def test_a_second_attempts_changed_param_loses_no_other(store: Any, run_id: str) -> None:
    store.log_param(run_id, "version.torch", "old")
    tracking = Tracking(run_id, lambda: store, AT_ONCE)
    tracking.start()
    tracking.params({"seed": 42, "version.torch": "new", "device": "cpu"})
    tracking.metrics({"val_loss": 0.5}, 1)
    assert tracking.drain(LONG) == 0
    run = store.get_run(run_id)
    assert run.data.params == {"seed": "42", "version.torch": "old", "device": "cpu"}
    assert run.data.metrics == {"val_loss": 0.5}
    assert run.info.status == "RUNNING"


def test_the_plan_is_a_table_in_the_runs_pages(store: Any, run_id: str) -> None:
    tracking = Tracking(run_id, lambda: store, AT_ONCE)
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
    Tracking(run_id, lambda: Unreliable(store, lambda _: next(verdicts)), AT_ONCE).upload(files, LONG)
    assert sorted(file.path for file in store.list_artifacts(run_id, "candidate")) == ["candidate/a", "candidate/b"]


def test_an_upload_that_cannot_succeed_in_time_is_told(tmp_path: Path) -> None:
    ticks = iter(range(0, 10_000, 100))
    tracking = Tracking("0" * 32, lambda: Unreliable(None, lambda _: "refused"), AT_ONCE)
    with pytest.raises(StageFailure, match=r"eval.pt2 could not be uploaded to MLflow for 300 s: ConnectionError") as end:
        tracking.upload([tmp_path / "eval.pt2"], 300, clock=lambda: float(next(ticks)))
    assert end.value.exit_code == ExitCode.TRACKING_UNAVAILABLE


def test_the_containers_use_of_its_machine_is_in_the_run(store: Any, run_id: str, tmp_path: Path) -> None:
    asked = Event()
    for name, text in {"cpu.stat": "usage_usec 5", "memory.current": "150000000", "memory.max": "600000000"}.items():
        (tmp_path / name).write_text(text)

    def verdict(_: str) -> str:
        asked.set()
        return "ok"

    tracking = Tracking(run_id, lambda: Unreliable(store, verdict), replace(AT_ONCE, sample=0.001), machine=Machine(tmp_path))
    tracking.start()
    assert asked.wait(LONG)
    (tmp_path / "memory.current").unlink()  # ends the samples, not the thread
    tracking.metrics({"val_loss": 0.5}, 1)
    assert tracking.drain(LONG) == 0
    metrics = store.get_run(run_id).data.metrics
    assert metrics["system/system_memory_usage_percentage"] == 25.0
    assert metrics["val_loss"] == 0.5


def test_a_server_that_never_comes_back_ends_no_training() -> None:
    tracking = Tracking("0" * 32, lambda: Unreliable(None, lambda _: "refused"), AT_ONCE)
    tracking.start()
    tracking.metrics({"val_loss": 0.5}, 1)
    tracking.tag("a", "b")
    assert tracking.drain(0.05) == 2
