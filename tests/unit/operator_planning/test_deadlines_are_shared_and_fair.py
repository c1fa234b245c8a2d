"""Time that counts and time that does not."""

from datetime import timedelta

import pytest
from dropout_testing.worlds import NOW, RUN, Simulation, kinds, pod, running_pod, spec, train_job, under_way, world, written

from dropout_api.status import Phase
from dropout_operator.actions import CreateJob
from dropout_operator.planning import plan
from dropout_operator.world import TrainingJob

LATE = NOW + timedelta(seconds=601)


def attempt(number: int, seconds: int | None) -> dict[str, object]:
    times = {"startTime": NOW.isoformat(), "endTime": (NOW + timedelta(seconds=seconds)).isoformat()} if seconds is not None else {}
    return {"number": number, "job": f"digits-{number}", **times}


@pytest.mark.parametrize(("spent", "left"), [([], 1000), ([400], 600), ([400, 500], 100), ([4000], 1)])
def test_all_attempts_share_the_active_deadline(spent: list[int], left: int) -> None:
    past = [attempt(number, seconds) for number, seconds in enumerate(spent, 1)]
    state = under_way(attempts=[*past, attempt(len(spent) + 1, None)])

    (action,) = plan(world(state, wanted=spec(activeDeadlineSeconds=1000))).actions

    assert isinstance(action, CreateJob)
    assert action.body["spec"]["activeDeadlineSeconds"] == left


def test_without_a_deadline_the_job_has_none() -> None:
    (action,) = plan(world(under_way())).actions

    assert isinstance(action, CreateJob)
    assert "activeDeadlineSeconds" not in action.body["spec"]


def test_a_deadline_that_passed_is_a_failure_that_names_the_field() -> None:
    after = written(plan(world(under_way("Running"), train_job(failed=True, reason="DeadlineExceeded"))).actions)

    assert after.failure is not None
    assert "spec.activeDeadlineSeconds" in after.failure.message


def test_a_scheduled_pod_that_does_not_start_in_time_is_a_failure_with_the_reason_why() -> None:
    job = train_job()
    stuck = pod(job, waiting_reason="ImagePullBackOff", waiting_message="not found")

    actions = plan(world(under_way(), job, pods=(stuck,), now=LATE)).actions

    after = written(actions)
    assert after.failure is not None
    assert after.failure.reason == "ImagePullBackOff"
    assert "spec.startDeadlineSeconds" in after.failure.message
    assert "DeleteJob" in kinds(actions)
    assert kinds(actions).index("DeleteJob") > kinds(actions).index("WriteStatus")


def test_waiting_for_a_node_does_not_count() -> None:
    job = train_job()
    seen = world(under_way(), job, pods=(pod(job, unschedulable="no GPU", scheduled=None),), now=LATE)

    assert written(plan(seen).actions).phase is Phase.QUEUED


def test_waiting_in_a_queue_does_not_count() -> None:
    assert written(plan(world(under_way(), train_job(suspended=True), now=LATE)).actions).phase is Phase.QUEUED


def test_the_time_since_scheduling_counts_and_not_the_pods_age() -> None:
    job = train_job()
    seen = world(under_way(), job, pods=(pod(job, scheduled=LATE),), now=LATE)

    assert not written(plan(seen).actions).phase.terminal


def test_running_ends_the_start_deadline() -> None:
    job = train_job()

    assert written(plan(world(under_way(), job, pods=(running_pod(job),), now=LATE)).actions).phase is Phase.RUNNING


@pytest.mark.parametrize(("ttl", "again"), [({}, None), ({"succeeded": 100}, 40.0), ({"failed": 100}, None)])
def test_only_the_phases_own_time_to_live_counts(ttl: dict[str, int], again: float | None) -> None:
    ended = under_way("Succeeded", completionTime=NOW.isoformat(), conditions=[
        {"type": "RunClosed", "status": "True", "reason": "Finished", "lastTransitionTime": NOW.isoformat()}])

    decided = plan(world(ended, wanted=spec(ttlSecondsAfterFinished=ttl), now=NOW + timedelta(seconds=60)))

    assert (decided.actions, decided.again) == ((), again)


def test_a_time_to_live_of_zero_still_closes_the_run_first() -> None:
    ended = under_way("Failed", completionTime=NOW.isoformat())

    decided = plan(world(ended, wanted=spec(ttlSecondsAfterFinished={"failed": 0})))

    assert kinds(decided.actions) == ["EndRun", "WriteStatus"]
    assert decided.again is not None


def test_suspended_time_is_not_spent() -> None:
    sim = Simulation(wanted=spec(activeDeadlineSeconds=1000))
    sim.reconcile()
    sim.pod_starts()
    sim.reconcile()
    sim.time_passes(300)
    sim.suspend()
    sim.reconcile()
    sim.garbage_is_collected()
    sim.time_passes(5000)
    sim.suspend(False)

    created = [action for action in sim.reconcile() if isinstance(action, CreateJob)]

    assert [action.body["spec"]["activeDeadlineSeconds"] for action in created] == [700]
    assert sim.state.run == RUN


def test_a_job_with_wrong_arguments_still_has_its_time_to_live() -> None:
    meta = {"name": "a", "namespace": "team", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z"}
    wrong = {"model": {"factory": "mlp", "args": {"hiden": [8]}}, "data": {"factory": "sklearn", "args": {"name": "wine"}}}
    job = TrainingJob.parse({"metadata": meta, "spec": wrong | {"ttlSecondsAfterFinished": {"failed": 5}}}, "cluster")
    assert job.problem is not None
    assert "spec.model.args.hiden" in job.problem
    assert job.spec is not None
    assert job.spec.ttl_seconds_after_finished.failed == 5
