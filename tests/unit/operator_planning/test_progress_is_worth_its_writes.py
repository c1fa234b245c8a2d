"""Progress is written every ten seconds or five percent, whichever comes first; never for nothing."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from dropout_testing.worlds import NOW, condition, ended_pod, kinds, running_pod, told, train_job, training_job, under_way, world, written

from dropout_api.report import ProgressSample
from dropout_operator.actions import WriteStatus
from dropout_operator.planning import plan
from dropout_operator.world import World


def sample(epoch: int, **fields: Any) -> ProgressSample:
    return ProgressSample(**{"attempt": 1, "epoch": epoch, "epochs": 100, "metrics": {"val_loss": 1 / epoch if epoch else 9.0}, **fields})


def running(old_epoch: int | None, new: ProgressSample | None, seconds: int = 1) -> World:
    job = train_job()
    begun = under_way("Running", imageID="sha256:abc", message="training",
                      attempts=[{"number": 1, "job": "digits-1", "startTime": NOW.isoformat()}])
    if old_epoch is not None:
        begun = written(plan(world(begun, job, pods=(running_pod(job),), progress=sample(old_epoch))).actions)
    return world(begun, job, pods=(running_pod(job),), progress=new, now=NOW + timedelta(seconds=seconds))


@pytest.mark.parametrize(("old", "new", "seconds", "writes"), [
    (None, 1, 1, True), (1, 2, 1, False), (1, 2, 10, True), (1, 6, 1, True), (1, 5, 1, False), (1, 1, 1000, False), (50, 2, 1, True),
])
def test_writes_come_with_time_or_distance(old: int | None, new: int, seconds: int, writes: bool) -> None:
    assert any(isinstance(action, WriteStatus) for action in plan(running(old, sample(new), seconds)).actions) is writes


def test_progress_is_one_line_for_people() -> None:
    fields = {"train_loss": 0.25, "val_loss": 0.5, "val_gap": 0.25}

    after = written(plan(running(None, sample(7, metrics=fields))).actions)

    assert after.message == "epoch 7/100, train_loss 0.2500, val_loss 0.5000, val_gap 0.2500"
    assert after.progress is not None
    assert (after.progress.percent, condition(after, "ProgressAvailable")) == (7, "True")


@pytest.mark.parametrize("new", [sample(0), sample(5, attempt=2), None])
def test_what_is_not_of_this_attempt_or_not_an_epoch_is_no_progress(new: ProgressSample | None) -> None:
    assert kinds(plan(running(None, new)).actions) == []


def test_a_trainer_that_cannot_reach_mlflow_is_told_once_however_long_an_epoch_takes() -> None:
    lost = plan(running(1, sample(1, tracking_healthy=False))).actions
    after = written(lost)
    still = replace(running(1, sample(20, tracking_healthy=False)), job=training_job(after))
    back = replace(running(1, sample(20)), job=training_job(after))

    assert (condition(after, "TrackingHealthy"), told(lost)) == ("False", ["TrackingLost"])
    assert told(plan(still).actions) == []
    assert (condition(written(plan(back).actions), "TrackingHealthy"), told(plan(back).actions)) == ("True", ["TrackingBack"])


def test_a_training_that_has_handed_over_its_model_has_reached_mlflow() -> None:
    lost = written(plan(running(1, sample(20, tracking_healthy=False))).actions)
    job = train_job(complete=True)
    actions = plan(world(lost, job, pods=(ended_pod(job),))).actions

    assert (condition(written(actions), "TrackingHealthy"), told(actions)) == ("True", ["TrackingBack", "Trained"])


@pytest.mark.parametrize("epoch", [100, 1000, 1_000_000])
def test_progress_never_drives_the_phase_or_passes_a_hundred(epoch: int) -> None:
    after = written(plan(running(None, sample(epoch))).actions)

    assert after.phase == "Running"
    assert after.progress is not None
    assert after.progress.percent == 100
