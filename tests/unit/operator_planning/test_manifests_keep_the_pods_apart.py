"""The two pods: what they may do, what the user's template reaches and what it does not."""

import base64
import hashlib
import hmac
import json
from dataclasses import replace
from typing import Any

import pytest
from dropout_testing.worlds import REF, RUN, SETTINGS, spec
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from dropout_api.names import RESERVED_ENV_PREFIXES, Env
from dropout_api.pod import PodTemplate
from dropout_api.spec import JobSpec
from dropout_api.task import JobRef, RunRef, TrainTask, VerifyTask
from dropout_operator.identities import trainer_password
from dropout_operator.manifests import tracking_secret, train_job, verify_job

WITH_PASSWORDS = replace(SETTINGS, mlflow_auth=True, trainer_key=b"key", verifier_secret="verifier")


def trainer(wanted: JobSpec | None = None) -> dict[str, Any]:
    return train_job(REF, wanted or spec(), RUN, 1, None, WITH_PASSWORDS)


def verifier(wanted: JobSpec | None = None, job: JobRef = REF, settings: Any = None) -> dict[str, Any]:
    run = RunRef(id=RUN.id, experiment_id=RUN.experiment_id)
    return verify_job(VerifyTask(job=job, run=run, spec=wanted or spec(), image_id="sha256:abc"), settings or WITH_PASSWORDS)


def pod_of(job: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = job["spec"]["template"]["spec"]
    return found


def environment(job: dict[str, Any]) -> dict[str, Any]:
    """As the kubelet reads it: of two variables of one name the later counts."""
    (container,) = pod_of(job)["containers"]
    return {item["name"]: item.get("value", item.get("valueFrom")) for item in container["env"]}


@pytest.mark.parametrize("job", [trainer(), verifier()], ids=["train", "verify"])
def test_pods_meet_the_restricted_pod_security_standard(job: dict[str, Any]) -> None:
    pod = pod_of(job)
    (container,) = pod["containers"]

    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers", "ephemeralContainers"} & pod.keys()


@pytest.mark.parametrize("job", [trainer(), verifier()], ids=["train", "verify"])
def test_pods_have_no_kubernetes_rights(job: dict[str, Any]) -> None:
    assert pod_of(job)["automountServiceAccountToken"] is False


@pytest.mark.parametrize("job", [trainer(), verifier()], ids=["train", "verify"])
def test_the_kubelet_never_restarts_a_container_in_place(job: dict[str, Any]) -> None:
    assert pod_of(job)["restartPolicy"] == "Never"


def test_a_training_is_tried_once_and_a_verification_often() -> None:
    assert trainer()["spec"]["backoffLimit"] == 0
    assert verifier()["spec"]["backoffLimit"] > 0


def test_the_train_job_is_owned_and_the_verify_job_cannot_be() -> None:
    (owner,) = trainer()["metadata"]["ownerReferences"]
    assert (owner["uid"], owner["controller"]) == (REF.uid, True)
    assert "ownerReferences" not in verifier()["metadata"]


words = st.text("abcdefghij", min_size=1, max_size=8)
volumes = st.builds(lambda name: {"name": name, "secret": {"secretName": "verifier"}}, words)
templates = st.fixed_dictionaries({}, optional={
    "labels": st.dictionaries(words, words, max_size=2), "annotations": st.dictionaries(words, words, max_size=2),
    "nodeSelector": st.dictionaries(words, words, max_size=2), "priorityClassName": words, "serviceAccountName": words,
    "tolerations": st.lists(st.builds(lambda key: {"key": key, "operator": "Exists"}, words), max_size=2),
    "affinity": st.just({"nodeAffinity": {"x": 1}}),
    "env": st.lists(st.builds(lambda n, v: {"name": n, "value": v}, words, words), max_size=2),
    "volumes": st.lists(volumes, max_size=2), "volumeMounts": st.lists(st.just({"name": "a", "mountPath": "/code"}), max_size=1),
    "sharedMemory": st.just("1Gi"),
})


@settings(max_examples=100, deadline=None)
@given(templates, st.dictionaries(st.sampled_from(["image", "imagePullPolicy"]), st.just("Always")), st.booleans())
def test_the_verify_pod_takes_the_tolerations_and_nothing_else_from_the_template(
    template: dict[str, Any], image: dict[str, str], secrets: bool,
) -> None:
    wanted = spec(podTemplate=template, **image, imagePullSecrets=["mine"] if secrets else [], resourcesPerNode={"limits": {"cpu": 99}})
    with_template, without = verifier(wanted), verifier()

    assert pod_of(with_template).pop("tolerations") == [item.to_wire() for item in wanted.pod_template.tolerations]
    for job in (with_template, without):
        pod_of(job).pop("tolerations", None)
        (container,) = pod_of(job)["containers"]
        container["env"] = [item for item in container["env"] if item["name"] != Env.TASK]
    assert with_template == without


@settings(max_examples=100, deadline=None)
@given(templates)
def test_the_platforms_environment_and_labels_win_in_the_training_pod(template: dict[str, Any]) -> None:
    forged = {"training.dropout.dev/job-uid": "forged", "training.dropout.dev/stage": "verify"}
    wanted = spec(podTemplate={**template, "labels": forged, "env": [*template.get("env", []), {"name": "HOME", "value": "/root"}]})

    job = trainer(wanted)

    marks = job["spec"]["template"]["metadata"]["labels"]
    assert (marks["training.dropout.dev/job-uid"], marks["training.dropout.dev/stage"]) == (REF.uid, "train")
    assert environment(job)["HOME"] == "/tmp"
    assert TrainTask.model_validate_json(environment(job)[Env.TASK]).job == REF


@pytest.mark.parametrize("prefix", RESERVED_ENV_PREFIXES)
def test_a_reserved_variable_never_reaches_a_manifest(prefix: str) -> None:
    with pytest.raises(ValidationError, match=prefix):
        PodTemplate.model_validate({"env": [{"name": f"{prefix}TRACKING_URI", "value": "http://evil"}]})


def test_the_trainer_is_given_its_namespaces_password_and_the_verifier_its_own() -> None:
    username, password = Env.TRACKING_USERNAME, Env.TRACKING_PASSWORD
    trainers, verifiers = environment(trainer()), environment(verifier())

    assert trainers[password]["secretKeyRef"]["name"] == tracking_secret(REF, WITH_PASSWORDS)["metadata"]["name"]
    assert verifiers[username]["secretKeyRef"] == {"name": "verifier", "key": "username"}
    assert tracking_secret(REF, WITH_PASSWORDS)["stringData"]["username"] == "trainer.team"


def test_a_password_is_an_hmac_of_the_namespace() -> None:
    digest = hmac.new(b"key", b"trainer/team", hashlib.sha256).digest()

    assert trainer_password(b"key", "team") == base64.urlsafe_b64encode(digest).decode()[:32]
    assert trainer_password(b"key", "team") != trainer_password(b"key", "team2")


def test_the_verifier_is_told_only_what_the_operator_knows_itself() -> None:
    task = VerifyTask.model_validate_json(environment(verifier())[Env.TASK])

    assert (task.job, task.run.id, task.model_name, task.image_id) == (REF, RUN.id, "team.digits", "sha256:abc")


def test_no_secret_stands_in_plain_text_in_a_manifest() -> None:
    secret = trainer_password(b"key", "team")

    assert secret not in json.dumps([trainer(), verifier()])


def test_the_jobs_own_resources_win_over_the_platforms() -> None:
    defaults = {"requests": {"cpu": "1", "memory": "2Gi"}, "limits": {"memory": "4Gi"}}
    wanted = spec(resourcesPerNode={"limits": {"memory": "1Gi", "nvidia.com/gpu": 1}})

    (container,) = pod_of(train_job(REF, wanted, RUN, 1, None, replace(SETTINGS, train_resources=defaults)))["containers"]

    assert container["resources"] == {"requests": {"cpu": "1"}, "limits": {"memory": "1Gi", "nvidia.com/gpu": 1}}


def test_names_fit_into_labels() -> None:
    longest = REF.model_copy(update={"name": "x" * 52})

    assert len(train_job(longest, spec(), RUN, 1000, None, SETTINGS)["metadata"]["name"]) <= 63
    assert len(verifier(job=longest)["metadata"]["name"]) <= 63


def test_a_verifier_signs_with_the_platforms_key_and_nobody_else_has_it() -> None:
    signing = replace(WITH_PASSWORDS, signing_secret="signing")
    verify = verifier(settings=signing)
    (volume,) = [volume for volume in pod_of(verify)["volumes"] if "secret" in volume]
    assert volume["secret"]["secretName"] == "signing"
    files = {f"/signing/{item['path']}" for item in volume["secret"]["items"]}
    assert files == {environment(verify)[Env.SIGNING_KEY], environment(verify)[Env.VERIFYING_KEY]}
    (mount,) = [mount for mount in pod_of(verify)["containers"][0]["volumeMounts"] if mount["name"] == volume["name"]]
    assert (mount["mountPath"], mount["readOnly"]) == ("/signing", True)

    assert "signing" not in json.dumps(train_job(REF, spec(), RUN, 1, None, signing))
    assert "signing" not in json.dumps(verifier())


def checkpointed(**checkpoint: Any) -> dict[str, Any]:
    return trainer(spec(checkpoint=checkpoint))


def folder(job: dict[str, Any]) -> str | None:
    return TrainTask.model_validate_json(environment(job)[Env.TASK]).checkpoints


def test_a_claim_for_checkpoints_is_mounted_where_the_trainer_is_told_to_write() -> None:
    job = checkpointed(volumeClaim="claim")

    (volume,) = [volume for volume in pod_of(job)["volumes"] if "persistentVolumeClaim" in volume]
    (mount,) = [mount for mount in pod_of(job)["containers"][0]["volumeMounts"] if mount["name"] == volume["name"]]
    assert volume["persistentVolumeClaim"] == {"claimName": "claim"}
    assert folder(job) == f"file://{mount['mountPath']}/{REF.uid}"


@pytest.mark.parametrize("uri", ["s3://bucket/checkpoints", "s3://bucket/checkpoints/"])
def test_checkpoints_elsewhere_are_in_the_jobs_own_folder_there_and_need_no_volume(uri: str) -> None:
    job = checkpointed(uri=uri)

    assert folder(job) == f"s3://bucket/checkpoints/{REF.uid}"
    assert pod_of(job)["volumes"] == pod_of(trainer())["volumes"]


def test_without_checkpoints_the_trainer_is_told_of_none() -> None:
    assert folder(trainer()) is None


def test_a_training_has_half_a_minute_to_end_and_more_where_it_saves_a_checkpoint() -> None:
    without, with_some = (pod_of(job)["terminationGracePeriodSeconds"] for job in (trainer(), checkpointed(uri="s3://a/b")))

    assert 30 <= without < with_some


def test_the_job_controller_records_that_a_training_pod_was_disrupted() -> None:
    (rule,) = trainer()["spec"]["podFailurePolicy"]["rules"]

    assert rule == {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    assert "podFailurePolicy" not in verifier()["spec"]
