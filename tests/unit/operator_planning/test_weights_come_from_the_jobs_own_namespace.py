"""`spec.model.weights`: looked up before a training Job is made, held to the job's namespace, handed to the trainer as a run."""

from dataclasses import replace
from typing import Any

import pytest
from dropout_testing.worlds import (
    RUN,
    SOURCE,
    Simulation,
    kinds,
    spec,
    told,
    train_job,
    tuned,
    under_way,
    world,
    written,
)

from dropout_api.names import Env, Stage
from dropout_api.spec import Weights
from dropout_api.status import JobStatus, Phase
from dropout_api.task import TrainTask
from dropout_operator.actions import CreateJob, EnsureRun, FindWeights
from dropout_operator.planning import plan
from dropout_operator.world import SourceRun

VERSION = {"model": "digits", "alias": "champion"}


def task_of(action: CreateJob) -> TrainTask:
    (container,) = action.body["spec"]["template"]["spec"]["containers"]
    return TrainTask.model_validate_json(next(item["value"] for item in container["env"] if item["name"] == Env.TASK))


@pytest.mark.parametrize("weights", [{"run": SOURCE.id}, VERSION, {"model": "digits", "version": 3, "strict": False}])
def test_first_the_run_is_looked_up_and_only_then_one_is_made_for_the_job(weights: dict[str, Any]) -> None:
    assert plan(world(wanted=tuned(**weights))).actions == (FindWeights(Weights.model_validate(weights)),)
    assert plan(world(wanted=tuned(**weights), weights=SOURCE)).actions == (EnsureRun("team.digits"),)


@pytest.mark.parametrize("weights", [{"run": SOURCE.id}, VERSION])
def test_the_trainer_is_told_the_run_and_not_where_its_name_came_from(weights: dict[str, Any]) -> None:
    actions = plan(world(wanted=tuned(**weights), weights=SOURCE, run=RUN)).actions
    (made,) = [action for action in actions if isinstance(action, CreateJob)]

    task = task_of(made)
    assert task.weights is not None
    assert (task.weights.id, task.weights.experiment_id, task.run.id) == (SOURCE.id, SOURCE.experiment_id, RUN.id)


@pytest.mark.parametrize("wanted", [spec(), tuned(uri="s3://bucket/weights.safetensors")])
def test_a_file_and_nothing_need_no_look(wanted: Any) -> None:
    assert plan(world(wanted=wanted)).actions == (EnsureRun("team.digits"),)
    (made,) = [action for action in plan(world(wanted=wanted, run=RUN)).actions if isinstance(action, CreateJob)]
    assert task_of(made).weights is None


OTHERS = [
    replace(SOURCE, experiment="another.digits", namespace="another"), replace(SOURCE, experiment="another.digits"),
    replace(SOURCE, experiment="team-b.digits"), replace(SOURCE, experiment="team"), replace(SOURCE, experiment="team:verified"),
    replace(SOURCE, namespace="another"), replace(SOURCE, namespace=""), replace(SOURCE, experiment="another.digits", active=True),
    replace(SOURCE, experiment="another.digits", verified="c" * 32),
]


@pytest.mark.parametrize("source", OTHERS)
@pytest.mark.parametrize(("weights", "reason", "field"), [
    ({"run": SOURCE.id}, "RunNotFound", "spec.model.weights.run: "), (VERSION, "VersionNotFound", "spec.model.weights.model: "),
])
def test_another_namespaces_run_is_refused_in_the_words_for_one_that_does_not_exist(
    source: SourceRun, weights: dict[str, Any], reason: str, field: str,
) -> None:
    actions = plan(world(wanted=tuned(**weights), weights=source)).actions

    assert actions == plan(world(wanted=tuned(**weights), weights=SourceRun(""))).actions
    after = written(actions)
    assert after.failure is not None
    assert (after.phase, after.failure.reason, after.run) == (Phase.FAILED, reason, None)
    assert after.failure.message.startswith(field)
    assert not any(isinstance(action, CreateJob) for action in actions)


@pytest.mark.parametrize(("change", "reason"), [({"active": True}, "RunNotEnded"), ({"verified": "c" * 32}, "RunTrainedNothing")])
def test_a_run_without_a_candidate_has_no_weights(change: dict[str, Any], reason: str) -> None:
    after = written(plan(world(wanted=tuned(), weights=replace(SOURCE, **change))).actions)

    assert after.failure is not None
    assert after.failure.reason == reason


def test_a_job_that_was_not_made_before_a_crash_waits_for_a_new_look() -> None:
    state = under_way()

    assert plan(world(state, wanted=tuned())).actions == (FindWeights(Weights(run=SOURCE.id)),)
    (made,) = plan(world(state, wanted=tuned(), weights=SOURCE)).actions
    assert isinstance(made, CreateJob)


def test_a_job_that_runs_is_not_looked_at_again() -> None:
    assert not any(isinstance(action, FindWeights) for action in plan(world(under_way("Running"), train_job(), wanted=tuned())).actions)


@pytest.mark.parametrize("state", [JobStatus(), under_way()], ids=["new", "starting"])
def test_waits_while_mlflow_is_away(state: JobStatus) -> None:
    decided = plan(world(state, wanted=tuned(), tracking_problem="connection refused"))

    assert told(decided.actions) == ["TrackingUnavailable"]
    assert decided.again is not None


def test_it_trains_and_is_verified_as_any_other() -> None:
    sim = Simulation(tuned())
    assert kinds(sim.reconcile())[:2] == ["FindWeights", "EnsureRun"]
    sim.pod_starts()
    sim.reconcile()
    assert sim.phase is Phase.RUNNING
    sim.pod_ends(Stage.TRAIN)
    sim.reconcile()
    assert sim.phase is Phase.VERIFYING


def test_each_attempt_looks_anew() -> None:
    sim = Simulation(tuned())
    sim.reconcile()
    sim.suspend()
    sim.reconcile()
    sim.garbage_is_collected()
    sim.source = SourceRun(SOURCE.id)
    sim.suspend(False)
    sim.reconcile()

    assert sim.phase is Phase.FAILED
    assert sim.state.failure is not None
    assert sim.state.failure.reason == "RunNotFound"
