"""World in, plan out: one test for each step of a job's life."""

from dataclasses import replace

import pytest
from dropout_testing.worlds import (
    NOW,
    REF,
    RUN,
    SETTINGS,
    condition,
    conditions,
    ended_pod,
    kinds,
    passed_report,
    pod,
    rejected_report,
    running_pod,
    spec,
    told,
    train_job,
    train_report,
    training_job,
    under_way,
    verify_job,
    verifying,
    world,
    written,
)

from dropout_api.status import Phase
from dropout_operator.actions import CreateJob, EndRun, EnsureRun, MarkRun
from dropout_operator.planning import plan
from dropout_operator.world import Blocked


def test_a_new_job_first_gets_its_run() -> None:
    assert plan(world()).actions == (EnsureRun("team.digits"),)


def test_the_run_is_in_status_before_the_job_that_uses_it_is_made() -> None:
    actions = plan(world(run=RUN)).actions

    assert kinds(actions) == ["EmitEvent", "WriteStatus", "CreateJob"]
    after = written(actions)
    assert (after.phase, after.run, after.start_time) == (Phase.STARTING, RUN, NOW)
    assert [(attempt.number, attempt.job) for attempt in after.attempts] == [(1, "digits-1")]


def test_a_password_is_made_before_the_pod_that_needs_it() -> None:
    settings = replace(SETTINGS, mlflow_auth=True, trainer_key=b"key")

    actions = plan(world(run=RUN, settings=settings)).actions

    assert kinds(actions)[-2:] == ["CreateSecret", "CreateJob"]
    assert condition(written(actions), "RegistryProtected") == "True"


def test_without_passwords_the_status_says_that_the_registry_is_open() -> None:
    assert condition(written(plan(world(run=RUN)).actions), "RegistryProtected") == "False"


def test_a_job_that_was_cut_off_before_its_pod_was_made_goes_on_with_the_same_attempt() -> None:
    (action,) = plan(world(under_way())).actions

    assert isinstance(action, CreateJob)
    assert action.body["metadata"]["name"] == "digits-1"


def test_waits_with_a_reason_while_mlflow_is_away() -> None:
    decided = plan(world(tracking_problem="connection refused"))

    after = written(decided.actions)
    assert (after.phase, condition(after, "TrackingHealthy")) == (Phase.PENDING, "False")
    assert "connection refused" in (after.message or "")
    assert told(decided.actions) == ["TrackingUnavailable"]
    assert decided.again is not None
    assert "CreateJob" not in kinds(decided.actions)


def test_a_pod_that_fits_no_node_is_queued() -> None:
    job = train_job()

    after = written(plan(world(under_way(), job, pods=(pod(job, unschedulable="0/3 nodes: no GPU", scheduled=None),))).actions)

    assert after.phase is Phase.QUEUED
    assert "no GPU" in (after.message or "")


def test_a_job_that_a_queue_holds_back_is_queued() -> None:
    assert written(plan(world(under_way(), train_job(suspended=True))).actions).phase is Phase.QUEUED


def test_runs_once_its_container_runs_and_says_so_in_mlflow() -> None:
    job = train_job()

    actions = plan(world(under_way(), job, pods=(running_pod(job, devices={"nvidia.com/gpu": "1"}),))).actions

    after = written(actions)
    assert (after.phase, after.image_id, after.devices) == (Phase.RUNNING, "sha256:abc", {"nvidia.com/gpu": "1"})
    assert after.attempts[-1].start_time == NOW
    assert actions[-1] == MarkRun(RUN.id, "RUNNING")
    assert told(actions) == ["TrainingStarted"]


def test_verifies_once_training_has_ended_well() -> None:
    job = train_job(complete=True)

    actions = plan(world(under_way("Running"), job, pods=(ended_pod(job, message=train_report(message="stopped early")),))).actions

    after = written(actions)
    assert (after.phase, condition(after, "Trained"), after.attempts[-1].reason) == (Phase.VERIFYING, "True", "Completed")
    assert after.progress is not None
    assert after.progress.metrics["val_loss"] == 0.3
    created = actions[-1]
    assert isinstance(created, CreateJob)
    assert created.body["metadata"]["namespace"] == SETTINGS.namespace
    assert kinds(actions).index("WriteStatus") < kinds(actions).index("CreateJob")


def test_succeeds_with_the_version_that_the_verifier_registered() -> None:
    job = verify_job(complete=True)

    actions = plan(world(verifying(), job, pods=(ended_pod(job, message=passed_report(modelVersion="4")),))).actions

    after = written(actions)
    assert after.phase is Phase.SUCCEEDED
    assert after.model is not None
    assert (after.model.name, after.model.version, after.model.uri) == ("team.digits", "4", "models:/team.digits/4")
    assert [condition(after, kind) for kind in ("Complete", "GatePassed", "Registered", "RunClosed")] == ["True"] * 4
    assert condition(after, "Failed") is None
    assert [action.state for action in actions if isinstance(action, EndRun)] == ["FINISHED"]


def test_is_rejected_with_the_checks_that_failed() -> None:
    job = verify_job(complete=True)

    actions = plan(world(verifying(), job, pods=(ended_pod(job, message=rejected_report()),))).actions

    after = written(actions)
    assert after.phase is Phase.REJECTED
    assert after.gate is not None
    assert after.gate.failed == ["no_random_ops"]
    assert after.model is None
    assert [condition(after, kind) for kind in ("Failed", "GatePassed", "Registered")] == ["True", "False", "False"]
    assert [action.state for action in actions if isinstance(action, EndRun)] == ["FAILED"]


def test_people_see_the_end_before_mlflow_is_asked_to_close_the_run() -> None:
    job = verify_job(complete=True)

    names = kinds(plan(world(verifying(), job, pods=(ended_pod(job, message=passed_report()),))).actions)

    assert names.index("WriteStatus") < names.index("EndRun")


def test_a_run_that_could_not_be_closed_is_closed_later() -> None:
    actions = plan(world(under_way("Succeeded", conditions=conditions(Complete=True)))).actions

    assert kinds(actions) == ["EndRun", "WriteStatus"]
    assert condition(written(actions), "RunClosed") == "True"


def test_a_verifier_that_could_not_judge_is_a_failure_and_never_a_rejection() -> None:
    job = verify_job(failed=True, reason="BackoffLimitExceeded")
    said = '{"stage": "verify", "reason": "TrackingUnavailable", "message": "MLflow is away"}'

    after = written(plan(world(verifying(), job, pods=(ended_pod(job, 69, said),))).actions)

    assert after.phase is Phase.FAILED
    assert after.gate is None
    assert after.failure is not None
    assert "MLflow is away" in after.failure.message
    assert "nothing was registered" in after.failure.message


def test_a_verdict_that_was_lost_with_its_pod_is_asked_for_again() -> None:
    assert kinds(plan(world(verifying(), verify_job(complete=True))).actions) == ["DeleteJob"]


def test_a_verdict_that_cannot_be_read_is_no_endless_loop() -> None:
    job = verify_job(complete=True)

    after = written(plan(world(verifying(), job, pods=(ended_pod(job, message="{}"),))).actions)

    assert (after.phase, after.model) == (Phase.FAILED, None)


def test_a_verify_job_that_was_lost_is_made_again() -> None:
    assert kinds(plan(world(verifying())).actions) == ["CreateJob"]


def test_a_pass_without_a_version_is_no_success() -> None:
    job = verify_job(complete=True)

    after = written(plan(world(verifying(), job, pods=(ended_pod(job, message=passed_report(modelVersion=None)),))).actions)

    assert (after.phase, after.model) == (Phase.FAILED, None)


def test_a_spec_that_cannot_be_trained_fails_before_anything_is_made() -> None:
    actions = plan(world(job=training_job(problem="spec.model.args.hiden: unknown field"))).actions

    after = written(actions)
    assert (after.phase, after.failure.reason if after.failure else None) == (Phase.FAILED, "InvalidSpec")
    assert "hiden" in (after.message or "")
    assert not {"EnsureRun", "CreateJob"} & set(kinds(actions))


def test_a_quota_that_is_full_is_waited_for() -> None:
    decided = plan(world(under_way(), blocked=Blocked("CreateFailed", "exceeded quota: pods", final=False)))

    assert written(decided.actions).phase is Phase.STARTING
    assert "exceeded quota" in (written(decided.actions).message or "")
    assert decided.again is not None


def test_a_pod_that_the_api_server_finds_wrong_is_a_failure_at_once() -> None:
    after = written(plan(world(under_way(), blocked=Blocked("CreateFailed", "spec.containers: Invalid value", final=True))).actions)

    assert after.phase is Phase.FAILED
    assert "Invalid value" in (after.message or "")


@pytest.mark.parametrize("phase", ["Queued", "Running"])
def test_a_training_job_that_someone_deleted_is_a_failure(phase: str) -> None:
    after = written(plan(world(under_way(phase))).actions)

    assert (after.phase, after.failure.reason if after.failure else None) == (Phase.FAILED, "JobDeleted")


def test_a_job_that_is_being_deleted_is_left_alone() -> None:
    decided = plan(world(job=training_job(under_way(), deleting=True)))

    assert (decided.actions, decided.again) == ((), None)


@pytest.mark.parametrize("phase", ["Succeeded", "Rejected", "Failed"])
def test_an_end_stays_whatever_the_children_do(phase: str) -> None:
    job = train_job()
    ended = under_way(phase, conditions=conditions(RunClosed=True), completionTime=NOW.isoformat())

    actions = plan(world(ended, job, pods=(running_pod(job),), wanted=spec(suspend=True))).actions

    assert kinds(actions) == ["DeleteJob"]


def test_a_changed_generation_is_observed_without_an_event() -> None:
    job = train_job()
    seen = world(job=training_job(under_way(message="pulling"), generation=2), children=(job,), pods=(pod(job, waiting_message="pulling"),))

    assert written(plan(seen).actions).observed_generation == 2
    assert told(plan(seen).actions) == []


def test_the_name_of_the_train_job_follows_from_job_and_attempt() -> None:
    (action,) = plan(world(under_way(attempts=[
        {"number": 1, "job": f"{REF.name}-1", "endTime": NOW.isoformat()}, {"number": 2, "job": f"{REF.name}-2"},
    ]))).actions

    assert isinstance(action, CreateJob)
    assert action.body["metadata"]["name"] == "digits-2"
