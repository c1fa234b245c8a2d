"""Whether a restart counts rests on what Kubernetes says of the pod. The pod's own word, however put, makes it count."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from dropout_testing.worlds import EVICTED, NOW, Simulation, ended_pod, pod, running_pod, spec, train_job, under_way, world, written
from hypothesis import given, settings
from hypothesis import strategies as st

from dropout_api.status import Attempt, Phase
from dropout_operator.planning import plan
from dropout_operator.world import Disruption, JobView, PodView

JOB = train_job(failed=True, reason="BackoffLimitExceeded")
BY_POLICY = replace(JOB, reason="PodFailurePolicy", message="Pod team/digits-1-x has condition DisruptionTarget matching FailJob rule")
EARLIER, LATER = NOW - timedelta(seconds=5), NOW + timedelta(seconds=5)


def after(*pods: PodView, job: JobView = JOB, seen: str | None = None) -> Attempt:
    """The attempt, once its Job has failed."""
    begun = {"attempts": [{"number": 1, "job": "digits-1", "disruption": seen}]}
    return written(plan(world(under_way("Running", **begun), job, pods=pods)).actions).attempts[0]


@pytest.mark.parametrize("reason", [
    "PreemptionByScheduler", "EvictionByEvictionAPI", "DeletionByTaintManager", "TerminationByKubelet", "DeletionByPodGC",
])
def test_a_disruption_that_kubernetes_names_does_not_count(reason: str) -> None:
    attempt = after(ended_pod(JOB, 143, disruption=Disruption(reason, "", EARLIER)))

    assert (attempt.reason, attempt.disruption) == (reason, reason)


def test_a_pod_that_someone_deleted_does_not_count() -> None:
    assert after(ended_pod(JOB, 137, deleted=EARLIER)).disruption == "PodDeleted"


def test_what_the_job_controller_has_recorded_holds_when_the_pod_is_gone() -> None:
    assert after(job=BY_POLICY).disruption == "DisruptionTarget"
    assert after(job=BY_POLICY, seen="PreemptionByScheduler").disruption == "PreemptionByScheduler"


def test_what_was_seen_of_the_pod_while_it_lived_holds_when_it_is_gone() -> None:
    assert after(seen="PodDeleted").disruption == "PodDeleted"


def test_what_was_seen_is_kept_while_the_pod_is_over_and_its_job_has_not_failed_yet() -> None:
    """The kubelet deletes a pod's object after its end, which moves the time of its deletion behind that end."""
    job, begun = train_job(), {"attempts": [{"number": 1, "job": "digits-1", "disruption": "PodDeleted"}]}
    over = ended_pod(job, 75, deleted=LATER)

    assert written(plan(world(under_way("Running", **begun), job, pods=(over,))).actions).attempts[0].disruption == "PodDeleted"


@pytest.mark.parametrize("code", [69, 74, 75, 137])
@pytest.mark.parametrize("said", ["Suspended", "EvictionByEvictionAPI", "PodDeleted", "Preempted", "Evicted"])
def test_no_report_of_the_pod_spares_a_restart(code: int, said: str) -> None:
    report = json.dumps({"stage": "train", "reason": said, "message": "Kubernetes did it"})

    attempt = after(ended_pod(JOB, code, report))

    assert attempt.disruption is None
    assert attempt.reason in ("TrackingUnavailable", "CheckpointsUnavailable", "Preempted", "Killed")


def test_a_node_that_ends_the_pod_for_its_own_fault_counts() -> None:
    full = replace(ended_pod(JOB, 137), reason="Evicted", message="Usage of EmptyDir volume exceeds the limit")

    assert (after(full).reason, after(full).disruption) == ("Evicted", None)


@pytest.mark.parametrize("later", [{"disruption": replace(EVICTED, since=LATER)}, {"deleted": LATER}])
def test_what_came_after_the_processs_end_did_not_cause_it(later: dict[str, object]) -> None:
    assert after(ended_pod(JOB, 137, **later)).disruption is None
    assert written(plan(world(under_way("Running"), JOB, pods=(ended_pod(JOB, 70, **later),))).actions).phase is Phase.FAILED


def test_pods_that_the_job_controller_ends_after_the_first_were_not_deleted_by_someone() -> None:
    first = ended_pod(JOB, 139, name="first")
    second = ended_pod(JOB, 143, name="second", deleted=NOW)
    assert second.terminated is not None
    second = replace(second, terminated=replace(second.terminated, finished=LATER))

    assert after(second, first).disruption is None


@pytest.mark.parametrize("change", [{"deleting": True}, {"suspended": True}])
def test_our_own_deletion_and_a_queues_suspension_are_no_disruption(change: dict[str, bool]) -> None:
    job = train_job(**change)
    seen = world(under_way("Starting"), job, pods=(running_pod(job, deleted=NOW),))

    assert written(plan(seen).actions).attempts[-1].disruption is None


def test_a_strangers_pod_says_nothing() -> None:
    job = train_job()
    forged = running_pod(job, owner_uid="another", deleted=NOW, disruption=EVICTED)

    mine = running_pod(job, name="mine")
    assert written(plan(world(under_way(), job, pods=(forged, mine))).actions).attempts[-1].disruption is None


def end_again(sim: Simulation, end: Callable[[Simulation], None]) -> None:
    """From one attempt to its end, and to the next where there is one."""
    sim.reconcile()
    sim.pod_starts()
    sim.reconcile()
    end(sim)
    sim.reconcile()
    sim.garbage_is_collected()
    sim.time_passes(400)


def is_killed(sim: Simulation) -> None:
    sim.pod_ends(exit_code=137)


def is_evicted(sim: Simulation) -> None:
    sim.pod_is_evicted()
    sim.pod_ends(exit_code=75)


def is_suspended_and_resumed(sim: Simulation) -> None:
    sim.suspend()
    sim.reconcile()
    sim.suspend(False)


@pytest.mark.parametrize("most", [0, 1, 3])
def test_restarts_that_count_end_at_the_limit_and_the_failure_names_it(most: int) -> None:
    sim = Simulation(spec(restart={"maxRestarts": most}))
    for _ in range(most + 1):
        assert not sim.phase.terminal
        end_again(sim, is_killed)

    assert (sim.phase, sim.state.restarts) == (Phase.FAILED, most)
    assert sim.state.failure is not None
    assert sim.state.failure.reason == "Killed"
    assert "spec.restart.maxRestarts" in sim.state.failure.message
    assert "kubectl logs" in sim.state.failure.message
    assert sim.run_states[-1] == "FAILED"


@pytest.mark.parametrize("most", [0, 1])
def test_even_evictions_end_at_ten_times_the_limit_and_ten(most: int) -> None:
    sim = Simulation(spec(restart={"maxRestarts": most}))
    for _ in range(10 * most + 10):
        assert not sim.phase.terminal
        end_again(sim, is_evicted)

    assert (sim.phase, len(sim.state.attempts)) == (Phase.FAILED, 10 * most + 10)
    assert sim.state.failure is not None
    assert (sim.state.failure.reason, sim.state.attempts[-1].reason) == ("EvictionByEvictionAPI", "EvictionByEvictionAPI")
    assert "spec.restart.maxRestarts" in sim.state.failure.message


def test_suspending_uses_up_no_restart() -> None:
    sim = Simulation(spec(restart={"maxRestarts": 1}))
    for _ in range(25):
        end_again(sim, is_suspended_and_resumed)
    end_again(sim, is_killed)
    assert not sim.phase.terminal

    end_again(sim, is_suspended_and_resumed)
    end_again(sim, is_killed)
    assert sim.phase is Phase.FAILED


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([is_killed, is_evicted, is_suspended_and_resumed]), max_size=16), st.integers(0, 2))
def test_in_any_order_the_kills_alone_are_counted(ends: list[Callable[[Simulation], None]], most: int) -> None:
    sim = Simulation(spec(restart={"maxRestarts": most}))
    for number, end in enumerate(ends, 1):
        end_again(sim, end)
        cut_off = [one for one in ends[:number] if one is not is_suspended_and_resumed]
        over = ends[:number].count(is_killed) > most or len(cut_off) >= 10 * most + 10
        assert (sim.phase is Phase.FAILED) == over
        if over:
            break


def test_a_pod_that_never_ran_may_be_disrupted_too() -> None:
    assert after(pod(JOB, phase="Failed", disruption=EVICTED)).disruption == "EvictionByEvictionAPI"
