"""What may end otherwise is tried again, once nothing of it is left and a while has gone by; what cannot is not."""

import json
from dataclasses import replace
from datetime import timedelta

import pytest
from dropout_testing.worlds import (
    EVICTED,
    NOW,
    REF,
    Simulation,
    ended_pod,
    kinds,
    pod,
    running_pod,
    spec,
    told,
    train_job,
    train_report,
    under_way,
    world,
    written,
)

from dropout_api.names import ExitCode
from dropout_api.status import Attempt, Phase
from dropout_operator.actions import CreateJob, DeleteJob, EmitEvent, EndRun, MarkRun
from dropout_operator.planning import plan
from dropout_operator.planning.restarting import pause_after
from dropout_operator.world import PodView

JOB = train_job(failed=True, reason="BackoffLimitExceeded")
CHECKPOINTED = spec(checkpoint={"volumeClaim": "claim"})


def running(sim: Simulation) -> Simulation:
    sim.reconcile()
    sim.pod_starts()
    sim.reconcile()
    return sim


def killed(sim: Simulation) -> Simulation:
    running(sim).pod_ends(exit_code=137)
    sim.reconcile()
    return sim


@pytest.mark.parametrize(("failed", "reason"), [
    (ended_pod(JOB, 137), "Killed"), (ended_pod(JOB, 139), "Killed"), (ended_pod(JOB, 135), "Killed"), (ended_pod(JOB, 143), "Killed"),
    (ended_pod(JOB, ExitCode.TRACKING_UNAVAILABLE), "TrackingUnavailable"), (ended_pod(JOB, ExitCode.PREEMPTED), "Preempted"),
    (ended_pod(JOB, ExitCode.CHECKPOINTS_UNAVAILABLE), "CheckpointsUnavailable"),
    (None, "PodLost"), (pod(JOB, phase="Failed", reason="UnexpectedAdmissionError", message="no GPU left"), "UnexpectedAdmissionError"),
    (ended_pod(JOB, 137, reason="Error", disruption=EVICTED), "EvictionByEvictionAPI"), (ended_pod(JOB, 143, deleted=NOW), "PodDeleted"),
    (pod(JOB, phase="Failed", disruption=EVICTED), "EvictionByEvictionAPI"),
])
def test_what_may_pass_is_tried_again(failed: PodView | None, reason: str) -> None:
    actions = plan(world(under_way("Running"), JOB, pods=(failed,) if failed else ())).actions

    after = written(actions)
    assert (after.phase, after.failure, after.completion_time) == (Phase.STARTING, None, None)
    assert (after.attempts[-1].reason, after.attempts[-1].end_time) == (reason, NOW)
    assert (after.message or "").startswith("attempt 2 follows attempt 1, which ended: ")
    assert kinds(actions) == ["EmitEvent", "WriteStatus", "DeleteJob"]
    assert told(actions) == [reason]


@pytest.mark.parametrize("code", [
    ExitCode.SPEC_INVALID, ExitCode.DATA_INVALID, ExitCode.DATA_MISSING, ExitCode.USER_CODE, ExitCode.NON_FINITE_LOSS,
    ExitCode.EXPORT_FAILED, ExitCode.USAGE, 1, 2, 128, 255,
])
def test_what_fails_the_same_way_each_time_is_not(code: int) -> None:
    after = written(plan(world(under_way("Running"), JOB, pods=(ended_pod(JOB, code),))).actions)

    assert after.phase is Phase.FAILED
    assert after.failure is not None
    assert after.failure.exit_code == code


def test_too_little_memory_or_time_is_not_tried_again() -> None:
    starved = plan(world(under_way("Running"), JOB, pods=(ended_pod(JOB, 137, reason="OOMKilled"),)))
    late = plan(world(under_way("Running"), replace(JOB, reason="DeadlineExceeded"), pods=(ended_pod(JOB, 143, deleted=NOW),)))

    for decided, reason in ((starved, "OOMKilled"), (late, "DeadlineExceeded")):
        after = written(decided.actions)
        assert (after.phase, after.failure.reason if after.failure else None) == (Phase.FAILED, reason)


def test_an_image_that_cannot_be_pulled_is_not_tried_again() -> None:
    waiting = train_job()
    stuck = pod(waiting, waiting_reason="ImagePullBackOff")

    assert written(plan(world(under_way(), waiting, pods=(stuck,), now=NOW + timedelta(seconds=601))).actions).phase is Phase.FAILED


def test_the_next_attempt_waits_until_the_job_of_the_one_before_is_gone() -> None:
    sim = killed(Simulation())
    sim.time_passes(100)

    assert sim.reconcile() == []

    sim.garbage_is_collected()
    actions = sim.reconcile()
    assert sim.created == [("team", "digits-1"), ("team", "digits-2")]
    assert told(actions) == ["Restarted"]
    assert sim.state.restarts == 1


@pytest.mark.parametrize("phase", ["Pending", "Running", "Unknown"])
def test_it_waits_for_pods_that_someone_left_behind_without_their_job(phase: str) -> None:
    over = under_way("Starting", attempts=[{"number": 1, "job": "digits-1", "reason": "Killed", "endTime": NOW.isoformat()}])
    seen = world(over, pods=(running_pod(JOB, phase=phase),), now=NOW + timedelta(seconds=60))

    assert plan(seen).actions == ()

    late = plan(replace(seen, now=NOW + timedelta(minutes=5)))
    assert told(late.actions) == ["PodLingers"]
    assert "digits-1-x" in (written(late.actions).message or "")
    assert "CreateJob" in kinds(plan(replace(seen, pods=(ended_pod(JOB, 137),))).actions)


def test_a_pod_of_another_namespace_holds_nothing_up() -> None:
    over = under_way("Starting", attempts=[{"number": 1, "job": "digits-1", "reason": "Killed", "endTime": NOW.isoformat()}])
    foreign = running_pod(JOB, namespace="evil")

    assert "CreateJob" in kinds(plan(world(over, pods=(foreign,), now=NOW + timedelta(seconds=60))).actions)


def test_it_waits_out_a_pause_and_asks_to_be_looked_at_then() -> None:
    sim = killed(Simulation())
    sim.garbage_is_collected()

    decided = plan(sim.world())
    assert decided.actions == ()
    assert decided.again is not None
    assert 8 <= decided.again <= 10

    sim.time_passes(decided.again)
    sim.reconcile()
    assert sim.created[-1] == ("team", "digits-2")


def attempts(*seconds: int) -> list[Attempt]:
    """Attempts that ran so long."""
    ends = NOW + timedelta(days=1)
    return [Attempt(number=number, job=f"digits-{number}", reason="Killed", start_time=ends - timedelta(seconds=ran), end_time=ends)
            for number, ran in enumerate(seconds, 1)]


@pytest.mark.parametrize(("ran", "pause"), [
    ([1], 10), ([1, 1], 20), ([1, 1, 1], 40), ([1] * 6, 300), ([1] * 60, 300), ([9000], 10), ([1, 1, 9000], 10), ([1, 1, 9000, 1], 10),
    ([9000, 1, 1], 20),
])
def test_pauses_double_to_five_minutes_and_an_attempt_that_ran_long_ends_the_row(ran: list[int], pause: float) -> None:
    assert 0.8 * pause <= pause_after(attempts(*ran), REF.uid) <= pause


def test_pauses_of_jobs_that_were_cut_off_together_differ_and_stay_as_they_are() -> None:
    pauses = [pause_after(attempts(1), f"uid-{number}") for number in range(20)]

    assert len(set(pauses)) > 10
    assert pauses == [pause_after(attempts(1), f"uid-{number}") for number in range(20)]


def test_a_clock_that_was_put_back_holds_nothing_up_for_long() -> None:
    over = under_way("Starting", attempts=[{"number": 1, "job": "digits-1", "reason": "Killed", "endTime": NOW.isoformat()}])

    decided = plan(world(over, now=NOW - timedelta(days=9)))

    assert decided.again is not None
    assert decided.again <= 10


def test_the_run_stays_open_and_the_same_through_all_attempts() -> None:
    sim = killed(Simulation())
    before = sim.state.run
    sim.garbage_is_collected()
    sim.time_passes()
    running(sim)

    assert (sim.state.run, len(sim.runs)) == (before, 1)
    assert set(sim.run_states) == {"RUNNING"}
    assert sim.phase is Phase.RUNNING


def test_people_see_which_attempt_it_is_and_why() -> None:
    sim = killed(Simulation(CHECKPOINTED))
    assert "attempt 2" in (sim.state.message or "")
    assert "SIGKILL" in (sim.state.message or "")
    sim.garbage_is_collected()
    sim.time_passes()

    events = [action for action in sim.reconcile() if isinstance(action, EmitEvent)]
    sim.pod_appears()
    sim.reconcile()
    assert [event.message for event in events] == ["attempt 2, after Killed: training goes on from its last checkpoint"]
    assert sim.state.message == "attempt 2, after Killed: the training pod is starting"
    sim.pod_starts()
    sim.reconcile()
    assert sim.state.message == "attempt 2, after Killed: training"


def test_a_pod_that_is_being_ended_is_told_once_and_its_reason_outlives_it() -> None:
    sim = running(Simulation())
    sim.pod_is_evicted()

    actions = sim.reconcile()
    assert told(actions) == ["EvictionByEvictionAPI"]
    assert "is being ended" in (sim.state.message or "")
    assert sim.reconcile() == []

    sim.pod_ends(exit_code=75)
    sim.pods.clear()
    sim.reconcile()
    assert (sim.state.attempts[0].reason, sim.state.attempts[0].start_time) == ("EvictionByEvictionAPI", NOW)


def test_a_pod_that_does_not_end_is_told_of() -> None:
    sim = running(Simulation())
    sim.pod_is_evicted()
    sim.reconcile()
    sim.time_passes(300)
    sim.reconcile()

    assert "where its node is lost" in (sim.state.message or "")


def test_an_eviction_that_is_taken_back_leaves_no_trace() -> None:
    job = train_job()
    noted = under_way("Running", attempts=[{"number": 1, "job": "digits-1", "disruption": "PreemptionByScheduler"}])

    after = written(plan(world(noted, job, pods=(running_pod(job),))).actions)

    assert (after.attempts[-1].disruption, after.message) == (None, "training")


def test_a_training_that_ends_well_although_it_is_evicted_is_trained() -> None:
    sim = running(Simulation())
    sim.pod_is_evicted()
    sim.reconcile()
    sim.pod_ends(message=train_report())
    sim.reconcile()

    assert sim.phase is Phase.VERIFYING
    assert (sim.state.attempts[-1].reason, sim.state.attempts[-1].disruption) == ("Completed", None)


def test_attempts_share_the_active_deadline() -> None:
    sim = running(Simulation(spec(activeDeadlineSeconds=1000)))
    sim.time_passes(300)
    sim.pod_ends(exit_code=137)
    sim.reconcile()
    sim.garbage_is_collected()
    sim.time_passes(50)

    created = [action for action in sim.reconcile() if isinstance(action, CreateJob)]
    assert [action.body["spec"]["activeDeadlineSeconds"] for action in created] == [700]


def test_a_job_suspended_between_two_attempts_keeps_the_reason_of_the_first() -> None:
    sim = killed(Simulation(CHECKPOINTED))
    sim.suspend()
    actions = sim.reconcile()
    assert [action.state for action in actions if isinstance(action, MarkRun)] == ["SCHEDULED"]
    assert sim.state.message == "suspended; set spec.suspend to false to go on from its last checkpoint"
    sim.garbage_is_collected()
    sim.time_passes()
    sim.suspend(False)
    sim.reconcile()

    assert [attempt.reason for attempt in sim.state.attempts] == ["Killed", None]


def test_a_job_that_is_resumed_needs_no_pause() -> None:
    sim = running(Simulation())
    sim.suspend()
    sim.reconcile()
    sim.garbage_is_collected()
    sim.suspend(False)
    sim.reconcile()

    assert sim.created[-1] == ("team", "digits-2")


def test_the_trainers_own_words_are_kept() -> None:
    said = json.dumps({"stage": "train", "reason": "TrackingUnavailable", "message": "MLflow was away for an hour"})

    after = written(plan(world(under_way("Running"), JOB, pods=(ended_pod(JOB, 69, said),))).actions)

    assert "MLflow was away for an hour" in (after.message or "")


def test_the_last_failures_pod_stays_for_its_log() -> None:
    actions = plan(world(under_way("Running"), JOB, pods=(ended_pod(JOB, 137),), wanted=spec(restart={"maxRestarts": 0}))).actions

    assert not [action for action in actions if isinstance(action, DeleteJob)]
    assert [action.state for action in actions if isinstance(action, EndRun)] == ["FAILED"]
