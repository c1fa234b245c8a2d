"""`spec.from`: looked up, owned by the job's namespace, judged by a verify Job and nothing else."""

import json
from dataclasses import replace
from typing import Any

import pytest
from dropout_testing.worlds import (
    NOW,
    REF,
    RUN,
    SETTINGS,
    SOURCE,
    Simulation,
    again,
    condition,
    ended_pod,
    kinds,
    passed_report,
    rejected_report,
    running_pod,
    told,
    verify_job,
    verifying_again,
    world,
    written,
)

from dropout_api.names import Env, Stage
from dropout_api.status import JobStatus, Phase
from dropout_api.task import VerifyTask
from dropout_operator.actions import CreateJob, DeleteJob, EnsureRun, FindSource
from dropout_operator.planning import plan
from dropout_operator.world import Blocked, SourceRun


def task_of(action: Any) -> VerifyTask:
    (container,) = action.body["spec"]["template"]["spec"]["containers"]
    return VerifyTask.model_validate_json(next(item["value"] for item in container["env"] if item["name"] == Env.TASK))


def test_first_the_run_is_looked_up_and_only_then_one_is_made_for_the_job() -> None:
    assert plan(world(wanted=again())).actions == (FindSource(SOURCE.id),)
    assert plan(world(wanted=again(), source=SOURCE)).actions == (EnsureRun("team.digits", SOURCE.id),)


def test_no_training_job_no_attempt_and_trained_says_reused() -> None:
    actions = plan(world(wanted=again(), source=SOURCE, run=RUN)).actions

    assert kinds(actions) == ["EmitEvent", "EmitEvent", "WriteStatus", "CreateJob", "MarkRun"]
    after = written(actions)
    assert (after.phase, after.attempts, after.run, after.start_time) == (Phase.VERIFYING, [], RUN, NOW)
    (trained,) = [item for item in after.conditions if item.type == "Trained"]
    assert (trained.status, trained.reason) == ("True", "Reused")
    assert SOURCE.id in trained.message
    assert condition(after, "RegistryProtected") == "False"
    assert told(actions) == ["RunCreated", "Reused"]


def test_the_verifier_reads_the_other_run_and_reports_to_the_jobs_own() -> None:
    source = replace(SOURCE, image_id="trainer@sha256:1")
    (made,) = [action for action in plan(world(wanted=again(), source=source, run=RUN)).actions if isinstance(action, CreateJob)]

    task = task_of(made)
    assert made.body["metadata"]["namespace"] == SETTINGS.namespace
    assert (task.trained.id, task.trained.experiment_id, task.run.id) == (SOURCE.id, SOURCE.experiment_id, RUN.id)
    assert task.image_id == "trainer@sha256:1"


OTHERS = [
    SourceRun(SOURCE.id), replace(SOURCE, experiment="another.digits", namespace="another"), replace(SOURCE, experiment="another.digits"),
    replace(SOURCE, experiment="team-b.digits"), replace(SOURCE, experiment="team"), replace(SOURCE, experiment="team:verified"),
    replace(SOURCE, namespace="another"), replace(SOURCE, namespace=""), replace(SOURCE, experiment="another.digits", active=True),
    replace(SOURCE, experiment="another.digits", verified="c" * 32),
]


@pytest.mark.parametrize("source", OTHERS)
def test_another_namespaces_run_is_refused_in_the_words_for_one_that_does_not_exist(source: SourceRun) -> None:
    actions = plan(world(wanted=again(), source=source)).actions

    assert actions == plan(world(wanted=again(), source=SourceRun(SOURCE.id))).actions
    after = written(actions)
    assert after.phase is Phase.FAILED
    assert after.failure is not None
    assert after.failure.reason == "RunNotFound"
    assert after.failure.message.startswith("spec.from.run: ")
    assert "status.run.id" in after.failure.message
    assert after.run is None


@pytest.mark.parametrize(("change", "reason", "words"), [
    ({"active": True}, "RunNotEnded", "has not ended"), ({"verified": "c" * 32}, "RunTrainedNothing", "c" * 32),
])
def test_a_run_without_a_candidate_is_refused_with_what_to_do(change: dict[str, Any], reason: str, words: str) -> None:
    after = written(plan(world(wanted=again(), source=replace(SOURCE, **change))).actions)

    assert after.failure is not None
    assert (after.failure.reason, condition(after, "Failed")) == (reason, "True")
    assert words in after.failure.message


def test_a_source_that_is_gone_when_the_verifier_must_be_made_anew_fails_the_job_and_closes_its_run() -> None:
    actions = plan(world(verifying_again(), wanted=again(), source=SourceRun(SOURCE.id))).actions

    assert written(actions).phase is Phase.FAILED
    assert kinds(actions) == ["EmitEvent", "WriteStatus", "EndRun", "WriteStatus"]


def test_a_forged_status_does_not_stand_for_the_look_at_the_run() -> None:
    assert plan(world(verifying_again(), wanted=again())).actions == (FindSource(SOURCE.id),)


def test_a_verifier_that_vanished_is_made_again_with_the_image_known_before() -> None:
    (made,) = plan(world(verifying_again(imageID="sha256:abc"), wanted=again(), source=SOURCE)).actions

    assert task_of(made).image_id == "sha256:abc"


@pytest.mark.parametrize("state", [JobStatus(), verifying_again()], ids=["new", "verifying"])
def test_waits_while_mlflow_is_away(state: JobStatus) -> None:
    decided = plan(world(state, wanted=again(), tracking_problem="connection refused"))

    assert written(decided.actions).phase is (Phase.VERIFYING if state.run else Phase.PENDING)
    assert told(decided.actions) == ["TrackingUnavailable"]
    assert decided.again is not None


def test_a_full_quota_is_told_once_and_waited_for() -> None:
    blocked = Blocked("CreateFailed", "exceeded quota", final=False)
    state = written(plan(world(verifying_again(), wanted=again(), blocked=blocked)).actions)

    assert kinds(plan(world(state, wanted=again(), source=SOURCE)).actions) == ["CreateJob"]
    assert plan(world(state, wanted=again(), source=SOURCE, blocked=blocked)).actions == ()


@pytest.mark.parametrize(("report", "phase", "run"), [
    (passed_report(), Phase.SUCCEEDED, "FINISHED"), (rejected_report(), Phase.REJECTED, "FAILED"),
])
def test_the_verdict_ends_it_as_it_ends_a_training(report: str, phase: Phase, run: str) -> None:
    sim = Simulation(again())
    for event in (lambda: None, lambda: sim.pod_starts(Stage.VERIFY), lambda: sim.pod_ends(Stage.VERIFY, message=report)):
        event()
        sim.reconcile()

    assert (sim.phase, sim.run_states[-1], sim.state.attempts) == (phase, run, [])
    assert sim.created == [(SETTINGS.namespace, f"verify-{REF.uid}")]


def test_a_verifier_that_gave_up_fails_it() -> None:
    job = verify_job(failed=True, reason="BackoffLimitExceeded")
    words = json.dumps({"stage": "verify", "reason": "TrackingUnavailable", "message": "MLflow did not answer"})

    after = written(plan(world(verifying_again(), job, wanted=again(), pods=(ended_pod(job, 69, words),))).actions)

    assert after.failure is not None
    assert after.failure.reason == "VerificationFailed"


def test_made_suspended_it_asks_for_nothing_and_runs_nothing() -> None:
    sim = Simulation(again(suspend=True))
    actions = sim.reconcile()

    assert kinds(actions) == ["EmitEvent", "WriteStatus"]
    assert (sim.phase, sim.created, sim.runs) == (Phase.SUSPENDED, [], [])

    sim.suspend(False)
    sim.reconcile()
    assert sim.phase is Phase.VERIFYING


def test_suspending_ends_the_verifier_and_resuming_waits_until_it_is_gone() -> None:
    job = verify_job()
    actions = plan(world(verifying_again(), job, wanted=again(suspend=True), pods=(running_pod(job),))).actions

    assert kinds(actions) == ["EmitEvent", "WriteStatus", "DeleteJob", "MarkRun"]
    assert [action.name for action in actions if isinstance(action, DeleteJob)] == [job.name]
    suspended = written(actions)
    ending = replace(job, deleting=True)
    assert plan(world(suspended, ending, wanted=again(suspend=True))).actions == ()
    assert plan(world(suspended, ending, wanted=again())).actions == ()
    assert kinds(plan(world(suspended, wanted=again(), source=SOURCE)).actions)[-2:] == ["CreateJob", "MarkRun"]


def test_resumed_before_its_verifier_was_ended_it_goes_on() -> None:
    assert written(plan(world(verifying_again("Suspended"), verify_job(), wanted=again())).actions).phase is Phase.VERIFYING


def test_a_verdict_that_was_reached_counts_though_the_job_is_suspended() -> None:
    job = verify_job(complete=True)
    after = written(plan(world(verifying_again(), job, wanted=again(suspend=True), pods=(ended_pod(job, 0, passed_report()),))).actions)

    assert after.phase is Phase.SUCCEEDED


def test_it_goes_after_its_time_to_live() -> None:
    sim = Simulation(again(ttlSecondsAfterFinished={"succeeded": 10}))
    for event in (lambda: None, lambda: sim.pod_starts(Stage.VERIFY), lambda: sim.pod_ends(Stage.VERIFY, message=passed_report()),
                  lambda: sim.time_passes(10)):
        event()
        sim.reconcile()

    assert sim.gone
