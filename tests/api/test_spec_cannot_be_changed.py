"""Immutability in the API server: nothing of a spec changes, comes or goes but what may."""

from copy import deepcopy
from typing import Any

import pytest
from dropout_testing.control_plane import ControlPlane
from dropout_testing.jobs import collection, create, manifest
from pydantic.alias_generators import to_camel

from dropout_api.crd import wire_name
from dropout_api.pod import PodTemplate
from dropout_api.spec import IMMUTABLE_UNLESS_SUSPENDED, MUTABLE, JobSpec

FULL: dict[str, Any] = {
    "model": {"factory": "mlp", "args": {"hidden": [8]}}, "data": {"factory": "sklearn", "args": {"name": "digits"}},
    "dropout": {"rate": 0.5, "layers": [{"match": "*", "rate": 0.1}]}, "training": {"epochs": 3}, "seed": 1, "determinism": "Strict",
    "image": "a:1", "imagePullPolicy": "Always", "imagePullSecrets": ["a"], "resourcesPerNode": {"limits": {"cpu": "1"}},
    "tracking": {"experiment": "a"}, "export": {"model": "a"}, "gate": [{"metric": "loss", "max": 1}], "startDeadlineSeconds": 60,
    "activeDeadlineSeconds": 60, "checkpoint": {"volumeClaim": "a"}, "restart": {"maxRestarts": 1}, "nodes": 2,
    "processesPerNode": 2,
}
OTHER: dict[str, Any] = {
    "model": {"factory": "cnn"}, "data": {"factory": "sklearn", "args": {"name": "wine"}}, "dropout": {"rate": 0.4},
    "training": {"epochs": 4}, "seed": 2, "determinism": "Off", "image": "a:2", "imagePullPolicy": "Never", "imagePullSecrets": [],
    "resourcesPerNode": {"limits": {"cpu": "2"}}, "tracking": {"experiment": "b"}, "export": {"model": "b"}, "gate": [],
    "startDeadlineSeconds": 61, "activeDeadlineSeconds": 61, "checkpoint": {"volumeClaim": "b"}, "restart": {"maxRestarts": 2},
    "nodes": 3, "processesPerNode": 1,
}
TEMPLATE: dict[str, Any] = {
    "labels": {"a": "1"}, "annotations": {"a": "1"}, "nodeSelector": {"a": "1"}, "tolerations": [{"key": "a"}],
    "affinity": {"nodeAffinity": {"a": 1}}, "priorityClassName": "a", "serviceAccountName": "a", "env": [{"name": "A", "value": "1"}],
    "volumes": [{"name": "a", "emptyDir": {}}], "volumeMounts": [{"name": "a", "mountPath": "/a"}], "sharedMemory": "1Gi",
}
SCHEDULING = tuple(map(to_camel, IMMUTABLE_UNLESS_SUSPENDED))


def put(plane: ControlPlane, namespace: str, name: str, spec: dict[str, Any]) -> None:
    """Replaces the whole object, as `kubectl replace` does."""
    path = f"{collection(namespace)}/{name}"
    old = plane.request("GET", path)
    plane.request("PUT", path, old | {"spec": spec})


def refusal(plane: ControlPlane, namespace: str, name: str, spec: dict[str, Any]) -> str:
    path = f"{collection(namespace)}/{name}"
    return plane.refusal("PUT", path, plane.request("GET", path) | {"spec": spec})


def test_the_tables_name_every_field() -> None:
    fields = {wire_name(name) for name in JobSpec.model_fields if name not in MUTABLE}

    assert set(FULL) == set(OTHER) == fields - {"from", "command"}
    assert set(TEMPLATE) == set(map(to_camel, PodTemplate.model_fields))


@pytest.mark.parametrize("field", sorted(OTHER))
def test_a_field_does_not_change(field: str, plane: ControlPlane, namespace: str) -> None:
    create(plane, namespace, "job", **FULL)

    assert f"spec.{field} is immutable" in refusal(plane, namespace, "job", FULL | {field: OTHER[field]})


@pytest.mark.parametrize("field", sorted(set(FULL) - {"model", "data"}))
def test_a_field_cannot_be_removed_and_set_anew(field: str, plane: ControlPlane, namespace: str) -> None:
    create(plane, namespace, "job", **FULL)
    without = {name: value for name, value in FULL.items() if name != field}

    assert f"spec.{field} is immutable" in refusal(plane, namespace, "job", without)


@pytest.mark.parametrize("field", ["image", "imagePullPolicy", "activeDeadlineSeconds", "checkpoint", "processesPerNode"])
def test_an_optional_field_cannot_be_added_later(field: str, plane: ControlPlane, namespace: str) -> None:
    create(plane, namespace, "job")
    spec = plane.request("GET", f"{collection(namespace)}/job")["spec"]

    assert f"spec.{field} is immutable" in refusal(plane, namespace, "job", spec | {field: FULL[field]})


@pytest.mark.parametrize("other", [{"run": "b" * 32}, None], ids=["another", "none"])
def test_the_candidate_does_not_change_or_give_way_to_a_training(other: Any, plane: ControlPlane, namespace: str) -> None:
    again = {"from": {"run": "a" * 32}}
    create(plane, namespace, "job", model=None, data=None, **again)
    instead = {"from": other} if other else {"model": FULL["model"], "data": FULL["data"]}

    assert "spec.from is immutable" in refusal(plane, namespace, "job", instead)


@pytest.mark.parametrize("other", [["python", "b.py"], None], ids=["another", "none"])
def test_a_program_does_not_change_or_give_way_to_a_model(other: Any, plane: ControlPlane, namespace: str) -> None:
    create(plane, namespace, "job", model=None, data=None, command=["python", "a.py"])
    instead = {"command": other} if other else {"model": FULL["model"], "data": FULL["data"]}

    assert "spec.command is immutable" in refusal(plane, namespace, "job", instead)


def test_a_training_does_not_give_way_to_a_candidate(plane: ControlPlane, namespace: str) -> None:
    create(plane, namespace, "job")

    assert "spec.from is immutable" in refusal(plane, namespace, "job", {"from": {"run": "a" * 32}})


@pytest.mark.parametrize("args", [{"width": [8]}, {}, {"hidden": [8], "dropout": 0.1}, {"hidden": [9]}])
def test_free_arguments_do_not_change_by_key_or_value(args: dict[str, Any], plane: ControlPlane, namespace: str) -> None:
    create(plane, namespace, "job", **FULL)
    changed = FULL | {"model": {"factory": "mlp", "args": args}}

    assert "spec.model is immutable" in refusal(plane, namespace, "job", changed)


@pytest.mark.parametrize("suspended", [True, False])
@pytest.mark.parametrize("field", sorted(TEMPLATE))
def test_of_the_template_only_scheduling_changes_and_only_while_suspended(
    field: str, suspended: bool, plane: ControlPlane, namespace: str,
) -> None:
    spec = manifest("job", suspend=suspended, podTemplate=TEMPLATE)["spec"]
    create(plane, namespace, "job", **spec)
    changed = deepcopy(spec)
    del changed["podTemplate"][field]

    if suspended and field in SCHEDULING:
        put(plane, namespace, "job", changed)
    else:
        word = "suspended" if field in SCHEDULING else "immutable"
        answer = refusal(plane, namespace, "job", changed)
        assert f"spec.podTemplate.{field} " in answer
        assert word in answer


def test_scheduling_does_not_change_in_the_request_that_resumes(plane: ControlPlane, namespace: str) -> None:
    create(plane, namespace, "job", suspend=True)
    resumed = manifest("job", suspend=False, podTemplate={"nodeSelector": {"a": "1"}})["spec"]

    assert "spec.podTemplate.nodeSelector" in refusal(plane, namespace, "job", resumed)


def test_suspend_and_time_to_live_change_at_any_time(plane: ControlPlane, namespace: str) -> None:
    job = create(plane, namespace, "job", **FULL)
    job.change(suspend=True)
    job.change(suspend=False, ttlSecondsAfterFinished={"failed": 10})
    job.change(ttlSecondsAfterFinished=None)

    assert job.raw()["metadata"]["generation"] == 4
