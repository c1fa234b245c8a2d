"""Whatever goes wrong, the job ends or recovers with a status that says what happened and what to do, the run is closed
in the right state, and nothing is registered that should not be."""

import os
import signal

import pytest
from dropout_testing import cluster
from dropout_testing.cluster import Object, TrainingJob
from dropout_testing.mlflow_client import ClusterMlflow


def assert_failed(job: TrainingJob, mlflow: ClusterMlflow, reason: str, *words: str) -> None:
    status = job.reaches("Failed")
    assert status["failure"]["reason"] == reason
    for word in words:
        assert word in status["failure"]["message"]
    assert job.condition("Failed")["status"] == "True"
    assert reason in [event["reason"] for event in job.events()]
    assert mlflow.state(status["run"]["id"]) == "FAILED"
    raw = job.raw()
    assert raw is not None
    assert len(mlflow.runs_of(raw["metadata"]["uid"])) == 1
    assert mlflow.versions(f"{job.namespace}.{job.name}") == []


def user_code(job: Object, body: str) -> None:
    """Makes the job's model that of a module `mine`, given as source in a ConfigMap of the job's name."""
    job["spec"]["model"] = {"factory": "mine:model"}
    job["spec"]["podTemplate"] = {
        "env": [{"name": "PYTHONPATH", "value": "/code"}],
        "volumes": [{"name": "code", "configMap": {"name": job["metadata"]["name"]}}],
        "volumeMounts": [{"name": "code", "mountPath": "/code"}],
    }


def with_code(name: str, namespace: str, body: str) -> TrainingJob:
    cluster.kubectl("create", "configmap", name, "-n", namespace, f"--from-literal=mine.py={body}")
    return cluster.apply_sample("breast-cancer-mlp", namespace, lambda job: user_code(job, body), name)


def test_a_killed_training_process(namespace: str, mlflow: ClusterMlflow) -> None:
    def change(job: Object) -> None:
        job["spec"]["training"]["epochs"] = 2000
        job["spec"]["restart"] = {"maxRestarts": 0}

    job = cluster.apply_sample("digits-cnn", namespace, change)
    job.reaches("Running")
    pod = job.train_pod()
    assert pod is not None
    for process in cluster.eventually("the training process", lambda: cluster.training_processes(pod["metadata"]["uid"]), 30):
        os.kill(process, signal.SIGKILL)
    assert_failed(job, mlflow, "Killed", "SIGKILL", "kubectl logs")
    assert job.status["failure"]["exitCode"] == 137
    assert job.status["failure"]["pod"] == pod["metadata"]["name"]


def test_an_image_that_does_not_exist(namespace: str, mlflow: ClusterMlflow) -> None:
    def change(job: Object) -> None:
        job["spec"] |= {"image": "localhost/no-such-image:1", "imagePullPolicy": "IfNotPresent", "startDeadlineSeconds": 15}

    job = cluster.apply_sample("digits-cnn", namespace, change)
    cluster.eventually("the reason, before the deadline", lambda: "no-such-image" in job.status.get("message", ""), 60)
    status = job.reaches("Failed")
    assert status["failure"]["reason"] in ("ErrImagePull", "ImagePullBackOff")
    assert "imagePullSecrets" in status["failure"]["message"]
    assert mlflow.state(status["run"]["id"]) == "FAILED"
    cluster.eventually("its pod to be gone", lambda: job.train_pod() is None, 60)


def test_a_factory_that_raises(namespace: str, mlflow: ClusterMlflow) -> None:
    job = with_code("raises", namespace, "def model(**kwargs):\n    raise RuntimeError('no weights at hand')\n")
    status = job.reaches("Failed")
    assert "no weights at hand" in status["failure"]["message"]
    assert "mine.py" in status["failure"]["message"]
    assert status["failure"]["exitCode"] == 70
    assert "Traceback" not in status["failure"]["message"]
    assert mlflow.state(status["run"]["id"]) == "FAILED"


def test_data_that_is_not_there(namespace: str, mlflow: ClusterMlflow) -> None:
    def change(job: Object) -> None:
        job["spec"]["podTemplate"] = {}
        job["spec"]["data"]["args"]["path"] = "/data/nowhere"

    job = cluster.apply_sample("fashion-mnist-cnn", namespace, change)
    status = job.reaches("Failed")
    assert "/data/nowhere" in status["failure"]["message"]
    assert "spec.data.args.path" in status["failure"]["message"]
    assert status["failure"]["exitCode"] == 66
    assert mlflow.state(status["run"]["id"]) == "FAILED"


def test_a_misspelt_argument_starts_no_pod(namespace: str) -> None:
    job = cluster.apply_sample("breast-cancer-mlp", namespace, lambda job: job["spec"]["model"].update(args={"hiden": [8]}))
    status = job.reaches("Failed")
    assert status["failure"]["reason"] == "InvalidSpec"
    assert "spec.model.args.hiden" in status["failure"]["message"]
    assert "hidden" in status["failure"]["message"]
    assert job.train_pod() is None


@pytest.mark.alone
def test_mlflow_down_for_two_minutes_in_the_middle(namespace: str, mlflow: ClusterMlflow) -> None:
    job = cluster.apply_sample("digits-cnn", namespace, lambda job: job["spec"]["training"].update(epochs=90))
    job.reaches("Running")
    cluster.eventually("a first epoch", lambda: job.status.get("progress", {}).get("epoch", 0) >= 1, 90)
    with cluster.scaled_to_zero(cluster.MLFLOW_DEPLOYMENT, seconds=120):
        told = {event["reason"] for event in job.events()}
    status = job.reaches("Succeeded", seconds=400)
    assert "TrackingLost" in told
    assert "TrackingBack" in {event["reason"] for event in job.events()}
    assert job.condition("TrackingHealthy")["status"] == "True"
    assert len(status["attempts"]) == 1
    run = status["run"]["id"]
    assert mlflow.state(run) == "FINISHED"
    assert [step for step, _ in mlflow.history(run, "val_loss")] == list(range(1, status["progress"]["epoch"] + 1))
    assert len(mlflow.versions(status["model"]["name"])) == 1


FORGERY = """
import json, os
from torch import nn

def model(input_shape, num_classes):
    report = {"stage": "verify", "verdict": "Passed", "modelName": "other.model", "modelVersion": "1", "sha256": "0" * 64,
              "modelUri": "models:/other.model/1", "reportUri": "http://example.invalid/"}
    with open("/dev/termination-log", "w") as out:
        out.write(json.dumps(report))
    os._exit(0)
"""


def test_a_forged_termination_message(namespace: str, mlflow: ClusterMlflow) -> None:
    job = with_code("forger", namespace, FORGERY)
    status = job.reaches("Rejected", "Failed")
    assert "model" not in status
    assert "candidate" in status["message"]
    assert mlflow.state(status["run"]["id"]) == "FAILED"
    assert mlflow.versions("other.model") == []
    assert mlflow.versions(f"{namespace}.forger") == []


def test_a_template_that_reaches_for_the_verify_pod(namespace: str, mlflow: ClusterMlflow) -> None:
    cluster.kubectl("create", "serviceaccount", "mine", "-n", namespace)
    cluster.kubectl("create", "configmap", "spell", "-n", namespace, "--from-literal=sitecustomize.py=raise SystemExit(0)")

    def change(job: Object) -> None:
        job["spec"]["podTemplate"] = {
            "serviceAccountName": "mine", "labels": {"training.dropout.dev/stage": "verify", "mine": "1"},
            "env": [{"name": "LD_PRELOAD", "value": ""}, {"name": "SPELL", "value": "1"}],
            "volumes": [{"name": "spell", "configMap": {"name": "spell"}}],
            "volumeMounts": [{"name": "spell", "mountPath": "/spell"}],
            "tolerations": [{"key": "mine", "operator": "Exists"}],
        }

    job = cluster.apply_sample("breast-cancer-mlp", namespace, change)
    job.reaches("Verifying", "Succeeded")
    raw = job.raw()
    assert raw is not None
    uid = raw["metadata"]["uid"]
    (pod,) = cluster.items("pods", cluster.OPERATOR_NAMESPACE, f"training.dropout.dev/job-uid={uid}")
    (container,) = pod["spec"]["containers"]
    assert pod["spec"]["serviceAccountName"] != "mine"
    (signing,) = [volume for volume in pod["spec"]["volumes"] if volume["name"] != "tmp"]
    assert signing["secret"]["secretName"] == "dropout-operator-signing"
    assert {variable["name"] for variable in container["env"]} == {
        "DROPOUT_TASK", "MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "HOME", "DROPOUT_SIGNING_KEY",
        "DROPOUT_VERIFYING_KEY"}
    assert container["image"] == cluster.TRAINER_IMAGE
    assert "mine" not in pod["metadata"]["labels"]
    assert {"key": "mine", "operator": "Exists"} in pod["spec"]["tolerations"]
    job.reaches("Succeeded")


@pytest.mark.parametrize("name", ["DROPOUT_TASK", "MLFLOW_TRACKING_URI"])
def test_reserved_variables_are_refused_at_the_door(namespace: str, name: str) -> None:
    def change(job: Object) -> None:
        job["spec"]["podTemplate"] = {"env": [{"name": name, "value": "x"}]}

    with pytest.raises(AssertionError, match=r"spec\.podTemplate\.env\[0\]\.name"):
        cluster.apply_sample("breast-cancer-mlp", namespace, change)
