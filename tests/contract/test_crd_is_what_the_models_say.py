"""The CRD in the repository is the generator's output, and the samples mean the same to every reader."""

import io
from pathlib import Path
from typing import Any

import pytest
import yaml

from dropout_api.crd import custom_resource_definition, to_yaml
from dropout_api.names import KIND
from dropout_api.problems.manifests import manifest_problems
from dropout_api.spec import JobSpec
from dropout_api.status import JobStatus

ROOT = Path(__file__).parents[2]
SAMPLES = sorted((ROOT / "crds/samples").glob("*.yaml"))
SCHEMA = custom_resource_definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def test_the_file_is_the_generators_output() -> None:
    assert (ROOT / "crds/dropouttrainingjobs.yaml").read_text() == to_yaml(custom_resource_definition()), "run `make crds`"


def jobs(path: Path) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document["kind"] == KIND]


def test_there_are_samples() -> None:
    assert len(SAMPLES) >= 5


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_a_sample_is_a_job_that_the_operator_takes(path: Path) -> None:
    (job,) = jobs(path)
    assert manifest_problems(job) == []


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_a_sample_survives_the_wire(path: Path) -> None:
    (job,) = jobs(path)
    spec = JobSpec.model_validate(job["spec"])

    assert JobSpec.model_validate(yaml.safe_load(io.StringIO(yaml.safe_dump(spec.to_wire())))) == spec
    assert JobSpec.model_validate_json(spec.to_json()) == spec


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_a_samples_file_is_named_after_its_job(path: Path) -> None:
    assert [job["metadata"]["name"] for job in jobs(path)] == [path.stem]


def test_every_object_of_the_schema_is_closed() -> None:
    def walk(node: Any, path: str) -> list[str]:
        if not isinstance(node, dict):
            return []
        here = [path] if node.get("x-kubernetes-preserve-unknown-fields") else []
        return here + [found for name, child in node.items() for found in walk(child, f"{path}.{name}")]

    assert {path.replace(".properties", "") for path in walk(SCHEMA["properties"]["spec"], "spec")} == {
        "spec.model.args", "spec.data.args", "spec.podTemplate.affinity.nodeAffinity", "spec.podTemplate.affinity.podAffinity",
        "spec.podTemplate.affinity.podAntiAffinity",
    }


def test_every_field_that_a_user_writes_is_explained_or_explains_itself() -> None:
    spec = SCHEMA["properties"]["spec"]["properties"]

    assert {name for name, field in spec.items() if not field.get("description")} <= {"imagePullPolicy"}


def test_a_default_in_the_schema_is_the_models_own() -> None:
    required = {"model": {"factory": "a:b"}, "data": {"factory": "a:b"}}
    filled = JobSpec.model_validate(required).to_wire()
    spec = SCHEMA["properties"]["spec"]["properties"]

    assert {name: spec[name]["default"] for name in ("seed", "determinism", "suspend", "startDeadlineSeconds")} == {
        name: filled[name] for name in ("seed", "determinism", "suspend", "startDeadlineSeconds")}


def test_a_status_survives_the_wire() -> None:
    full = JobStatus.model_validate({
        "phase": "Succeeded", "imageID": "sha256:abc", "run": {"id": "a" * 32, "experimentId": "1"},
        "completionTime": "2026-01-01T00:00:00Z",
        "attempts": [{"number": 1, "job": "a-1", "startTime": "2026-01-01T00:00:00Z"}],
    })

    assert JobStatus.model_validate(full.to_wire()) == full
    assert full.to_wire()["imageID"] == "sha256:abc"
