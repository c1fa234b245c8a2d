"""What people read when a pod fails: the cause in the reason, the remedy in the message."""

import json
from dataclasses import replace
from datetime import timedelta

import pytest
from dropout_testing.worlds import NOW, REF, ended_pod, pod, spec, told, train_job, under_way, world, written

from dropout_api.status import Failure, Phase
from dropout_operator.planning import plan
from dropout_operator.world import PodView


def failure_of(pods: tuple[PodView, ...], reason: str = "BackoffLimitExceeded") -> Failure:
    wanted = spec(restart={"maxRestarts": 0})
    actions = plan(world(under_way("Running"), train_job(failed=True, reason=reason), pods=pods, wanted=wanted)).actions
    after = written(actions)
    assert after.phase is Phase.FAILED
    assert after.failure is not None
    assert after.message == after.failure.message
    assert after.attempts[-1].reason == after.failure.reason
    assert told(actions) == [after.failure.reason]
    return after.failure


JOB = train_job()


@pytest.mark.parametrize(("failed", "reason", "says"), [
    (ended_pod(JOB, 137, reason="OOMKilled"), "OOMKilled", "resourcesPerNode.limits.memory"),
    (ended_pod(JOB, 137), "Killed", "SIGKILL"),
    (ended_pod(JOB, 139), "Killed", "SIGSEGV"),
    (ended_pod(JOB, 1, "Traceback: no module named clinic"), "Error", "no module named clinic"),
    (ended_pod(JOB, 3), "Error", "kubectl logs digits-1-x"),
    (ended_pod(JOB, 143), "Killed", "SIGTERM"),
    (pod(JOB, phase="Failed", reason="UnexpectedAdmissionError", message="no GPU left"), "UnexpectedAdmissionError", "no GPU left"),
])
def test_the_end_of_a_process_is_told_in_words(failed: PodView, reason: str, says: str) -> None:
    failure = failure_of((failed,))

    assert failure.reason == reason
    assert says in failure.message
    assert failure.pod == failed.name


@pytest.mark.parametrize("reason", ["Evicted", "Preempting", "NodeLost", "Shutdown", "Terminated"])
def test_a_pod_that_the_node_ended_is_not_blamed_on_training(reason: str) -> None:
    ended = replace(ended_pod(JOB, 137, reason="OOMKilled"), reason=reason, message="The node was low on resource: memory")

    failure = failure_of((ended,))

    assert failure.reason == reason
    assert "low on resource" in failure.message
    assert "create the job again" in failure.message


def test_the_trainers_own_words_come_first() -> None:
    said = json.dumps({"stage": "train", "reason": "NonFiniteLoss", "message": "loss is NaN at epoch 2; lower the learning rate"})

    failure = failure_of((ended_pod(JOB, 71, said),))

    assert (failure.reason, failure.exit_code, failure.container) == ("NonFiniteLoss", 71, "train")
    assert "lower the learning rate" in failure.message


def test_a_trainer_may_not_speak_for_the_verifier() -> None:
    said = json.dumps({"stage": "verify", "reason": "GateFailed", "message": "trust me"})

    assert failure_of((ended_pod(JOB, 1, said),)).reason == "Error"


def test_long_last_words_are_cut() -> None:
    assert len(failure_of((ended_pod(JOB, 1, "x" * 60_000),)).message) < 2000


def test_a_pod_that_is_gone_says_that_its_node_may_be() -> None:
    failure = failure_of(())

    assert failure.reason == "PodLost"
    assert "node" in failure.message


def test_the_newest_pod_is_the_one_that_is_told_of() -> None:
    old = ended_pod(JOB, 1, "old", name="old", created=NOW - timedelta(hours=1))

    assert failure_of((old, ended_pod(JOB, 1, "new", name="new"))).pod == "new"


@pytest.mark.parametrize("reason", ["ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"])
def test_an_image_that_cannot_be_pulled_is_told_while_the_job_waits(reason: str) -> None:
    waiting = pod(JOB, waiting_reason=reason, waiting_message='Back-off pulling image "trainr:1"')

    actions = plan(world(under_way(), JOB, pods=(waiting,))).actions

    after = written(actions)
    assert after.phase is Phase.STARTING
    assert "trainr:1" in (after.message or "")
    assert "spec.imagePullSecrets" in (after.message or "")
    assert told(actions) == [reason]


def test_a_missing_secret_is_told_while_the_job_waits() -> None:
    waiting = pod(JOB, waiting_reason="CreateContainerConfigError", waiting_message='secret "data" not found')

    assert told(plan(world(under_way(), JOB, pods=(waiting,))).actions) == ["CreateContainerConfigError"]


def test_a_job_without_a_pod_says_where_to_look() -> None:
    old = train_job(created=NOW - timedelta(seconds=30))

    after = written(plan(world(under_way(), old)).actions)

    assert f"kubectl describe job {REF.name}-1" in (after.message or "")
