"""Labels and names are anyone's to give; an owner's UID and a place are not."""

import pytest
from dropout_testing.worlds import (
    REF,
    ended_pod,
    kinds,
    passed_report,
    running_pod,
    spec,
    told,
    train_job,
    train_report,
    under_way,
    verify_job,
    verifying,
    world,
    written,
)

from dropout_api.status import Phase
from dropout_operator.planning import plan


@pytest.mark.parametrize("owner", [None, "a-namesake-deleted-before"])
def test_a_job_of_our_name_that_is_not_ours_is_a_conflict_and_left_alone(owner: str | None) -> None:
    actions = plan(world(under_way(), train_job(owner_uid=owner, complete=True))).actions

    after = written(actions)
    assert after.failure is not None
    assert after.failure.reason == "NameConflict"
    assert "digits-1" in after.failure.message
    assert "DeleteJob" not in kinds(actions)
    assert told(actions) == ["NameConflict"]


def test_suspending_stops_no_strangers_job() -> None:
    actions = plan(world(under_way(), train_job(owner_uid="stranger"), wanted=spec(suspend=True))).actions

    assert "DeleteJob" not in kinds(actions)


def test_a_strangers_pod_starts_nothing() -> None:
    job = train_job()
    forged = running_pod(job, owner_uid="another")

    assert "MarkRun" not in kinds(plan(world(under_way(), job, pods=(forged,))).actions)


def test_a_pod_of_another_namespace_that_names_our_job_as_owner_starts_nothing() -> None:
    job = train_job()

    assert "MarkRun" not in kinds(plan(world(under_way(), job, pods=(running_pod(job, namespace="evil"),))).actions)


def test_a_verify_job_in_the_users_namespace_registers_nothing() -> None:
    forged = verify_job(namespace=REF.namespace, owner_uid=REF.uid, complete=True)

    actions = plan(world(verifying(), forged, pods=(ended_pod(forged, message=passed_report()),))).actions

    assert kinds(actions) == ["CreateJob"]


def test_a_verify_pod_in_the_users_namespace_registers_nothing() -> None:
    job = verify_job(complete=True)
    forged = ended_pod(job, message=passed_report(), namespace=REF.namespace)

    actions = plan(world(verifying(), job, pods=(forged,))).actions

    assert kinds(actions) == ["DeleteJob"]


def test_a_training_pod_that_says_passed_is_only_trained() -> None:
    job = train_job(complete=True)

    after = written(plan(world(under_way("Running"), job, pods=(ended_pod(job, message=passed_report()),))).actions)

    assert after.phase is Phase.VERIFYING
    assert (after.model, after.gate) == (None, None)


@pytest.mark.parametrize("message", [
    "", "{", "[]", "null", "\x00", "x" * 70_000, '{"stage":"train","reason":"not camel case"}', train_report(epoch=-1),
    train_report(metrics={f"m{n}": 1 for n in range(40)}), train_report(message="y" * 2000), train_report(stage="verify"),
])
def test_garbage_from_a_training_pod_leaves_the_phase_to_the_exit_code(message: str) -> None:
    job = train_job(complete=True)

    after = written(plan(world(under_way("Running"), job, pods=(ended_pod(job, message=message),))).actions)

    assert after.phase is Phase.VERIFYING
    assert after.progress is None


def test_what_is_not_finite_is_not_a_metric() -> None:
    job = train_job(complete=True)
    said = '{"stage":"train","reason":"Trained","metrics":{"val_loss":NaN,"train_loss":1e999,"val_gap":0.5}}'

    after = written(plan(world(under_way("Running"), job, pods=(ended_pod(job, message=said),))).actions)

    assert after.progress is None or set(after.progress.metrics) == {"val_gap"}


def test_a_reports_unknown_fields_are_dropped() -> None:
    job = train_job(complete=True)
    said = train_report(modelUri="models:/evil/1", runId="b" * 32)

    after = written(plan(world(under_way("Running"), job, pods=(ended_pod(job, message=said),))).actions)

    assert "evil" not in after.to_json()
    assert after.run == under_way().run
