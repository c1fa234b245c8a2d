"""A training of several pods: they find each other by name, start and end together, and the one at fault is blamed."""

import json
from dataclasses import replace
from datetime import timedelta

import pytest
from dropout_testing.worlds import (
    EVICTED,
    NOW,
    REF,
    RUN,
    SETTINGS,
    ended_pod,
    kinds,
    pod,
    running_pod,
    spec,
    status,
    train_job,
    train_report,
    under_way,
    world,
    written,
)

from dropout_api.names import Label, Stage
from dropout_api.status import JobStatus, Phase
from dropout_operator.manifests import service
from dropout_operator.manifests import train_job as manifest
from dropout_operator.planning import plan
from dropout_operator.world import JobView, PodView

SECOND = timedelta(seconds=1)
TWO = spec(nodes=2)
JOB = train_job()
FAILED = replace(JOB, failed=True, reason="BackoffLimitExceeded")
BY_POLICY = replace(FAILED, reason="PodFailurePolicy", message="Pod team/digits-1-1 has condition DisruptionTarget matching FailJob rule")


def after(job: JobView, *pods: PodView, **changes: object) -> JobStatus:
    return written(plan(world(under_way("Running"), job, pods=pods, wanted=TWO, **changes)).actions)


def ended_at(moment: object, code: int, index: int, **changes: object) -> PodView:
    over = ended_pod(JOB, code, index=index, name=f"digits-1-{index}", **changes)
    assert over.terminated is not None
    return replace(over, terminated=replace(over.terminated, finished=moment))


def test_every_pod_is_told_the_name_of_rank_0_which_the_service_gives_it() -> None:
    made, given = manifest(REF, TWO, RUN, 3, None, SETTINGS), service(REF)
    template = made["spec"]["template"]
    environment = {item["name"]: item.get("value") for item in template["spec"]["containers"][0]["env"]}

    assert (made["spec"]["completionMode"], made["spec"]["parallelism"], made["spec"]["completions"]) == ("Indexed", 2, 2)
    assert environment["MASTER_ADDR"] == f"digits-3-0.{given['metadata']['name']}"
    assert int(environment["MASTER_PORT"]) == given["spec"]["ports"][0]["port"]
    assert template["spec"]["subdomain"] == given["metadata"]["name"]
    assert given["spec"]["clusterIP"] == "None"
    assert given["spec"]["publishNotReadyAddresses"] is True
    assert given["spec"]["selector"].items() <= template["metadata"]["labels"].items()
    assert given["spec"]["selector"] == {Label.UID: REF.uid, Label.STAGE: Stage.TRAIN}
    assert [item["uid"] for item in given["metadata"]["ownerReferences"]] == [REF.uid]


def test_no_two_attempts_meet() -> None:
    first, second = (manifest(REF, TWO, RUN, attempt, None, SETTINGS) for attempt in (1, 2))
    addresses = [
        next(item["value"] for item in made["spec"]["template"]["spec"]["containers"][0]["env"] if item["name"] == "MASTER_ADDR")
        for made in (first, second)
    ]

    assert len(set(addresses)) == 2


@pytest.mark.parametrize(("nodes", "made"), [(1, ["CreateJob"]), (2, ["CreateService", "CreateJob"])])
def test_names_are_given_before_pods_ask_for_them(nodes: int, made: list[str]) -> None:
    actions = plan(world(status("Pending"), wanted=spec(nodes=nodes), run=RUN)).actions

    assert [kind for kind in kinds(actions) if kind in ("CreateService", "CreateJob")] == made


def test_a_job_runs_once_all_its_pods_do() -> None:
    first, second = running_pod(JOB, index=0), running_pod(JOB, index=1)
    seen = [
        written(plan(world(under_way(), JOB, pods=pods, wanted=TWO)).actions)
        for pods in ((first,), (first, pod(JOB, index=1)), (first, second))
    ]

    assert [state.phase for state in seen] == [Phase.STARTING, Phase.STARTING, Phase.RUNNING]
    assert seen[1].message == "1 of 2 pods run: the training pod is starting"


def test_a_pod_that_no_node_takes_keeps_the_job_queued() -> None:
    stuck = pod(JOB, index=1, unschedulable="0/1 nodes are available")

    queued = written(plan(world(under_way(), JOB, pods=(running_pod(JOB), stuck), wanted=TWO)).actions)
    assert queued.phase is Phase.QUEUED
    assert "1 of 2 pods run: waiting for a node: 0/1 nodes are available" in (queued.message or "")


def test_the_report_is_that_of_rank_0() -> None:
    complete = replace(JOB, complete=True)
    lead, other = ended_at(NOW, 0, 0, message=train_report(epoch=3)), ended_at(NOW, 0, 1, message=train_report(epoch=9))
    state = after(complete, other, lead)

    assert state.progress is not None
    assert (state.phase, state.progress.epoch) == (Phase.VERIFYING, 3)


def test_who_only_lost_another_is_not_blamed() -> None:
    killed, bereft = ended_at(NOW, 137, 1), ended_at(NOW, 76, 0)

    for pods in ((killed, bereft), (bereft, killed)):
        assert after(FAILED, *pods).attempts[0].reason == "Killed"


def test_a_lost_peer_alone_is_tried_again() -> None:
    state = after(FAILED, ended_at(NOW, 76, 0))

    assert (state.phase, state.attempts[0].reason, state.attempts[0].disruption) == (Phase.STARTING, "PeerLost", None)


def test_an_eviction_of_one_spares_the_restart_whoever_ended_first() -> None:
    """Processes agree to stop between two steps, so the pod that was not evicted may be over sooner."""
    evicted = ended_at(NOW + SECOND, 75, 1, disruption=replace(EVICTED, since=NOW - SECOND), deleted=NOW - SECOND)
    other = ended_at(NOW, 75, 0, deleted=NOW + SECOND)

    assert after(BY_POLICY, other, evicted).attempts[0].disruption == "EvictionByEvictionAPI"


def test_pods_that_the_job_controller_deletes_after_the_first_ended_spare_nothing() -> None:
    crashed = ended_at(NOW, 139, 0)
    other = running_pod(JOB, index=1, deleted=NOW + SECOND)

    assert after(FAILED, crashed, other).attempts[0].disruption is None


def test_a_pod_that_ended_well_before_the_others_failed_is_not_the_first_to_fail() -> None:
    """Only rank 0 exports, so the others are done earlier."""
    said = json.dumps({"stage": "train", "reason": "ExportFailed", "message": "no"})
    done, failed = ended_at(NOW, 0, 1), ended_at(NOW + SECOND, 73, 0, message=said)

    state = after(FAILED, done, failed)
    assert state.failure is not None
    assert (state.failure.reason, state.failure.pod) == ("ExportFailed", "digits-1-0")


def test_another_attempt_waits_for_all_pods_of_the_one_before() -> None:
    over = under_way("Starting", attempts=[{"number": 1, "job": "digits-1", "reason": "Killed", "endTime": NOW.isoformat()}])
    later = NOW + timedelta(minutes=1)

    waiting = plan(world(over, pods=(ended_at(NOW, 137, 0), running_pod(JOB, index=1)), wanted=TWO, now=later))
    gone = plan(world(over, pods=(ended_at(NOW, 137, 0), ended_at(NOW, 143, 1)), wanted=TWO, now=later))
    assert "CreateJob" not in kinds(waiting.actions)
    assert "CreateJob" in kinds(gone.actions)
