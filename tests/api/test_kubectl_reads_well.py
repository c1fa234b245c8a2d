"""What people see, with the kubectl they have."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from dropout_testing.control_plane import ControlPlane
from dropout_testing.jobs import Job, create
from dropout_testing.operators import ROOT

from dropout_api.spec import JobSpec

Kubectl = Callable[..., str]


@pytest.fixture(scope="module")
def kubectl(binaries: Path, plane: ControlPlane) -> Kubectl:
    program, config = binaries / "kubectl", plane.kubeconfig()
    if not program.exists():
        pytest.fail(f"no kubectl in {binaries}")

    def run(*arguments: str, stdin: str | None = None, check: bool = True) -> str:
        done = subprocess.run(
            [program, "--kubeconfig", config, "--cache-dir", plane.folder / "cache", *arguments],
            input=stdin, capture_output=True, text=True, timeout=120, check=False,
        )
        assert not check or done.returncode == 0, done.stderr
        return done.stdout if check else done.stdout + done.stderr

    return run


@pytest.fixture
def finished(operator: object, plane: ControlPlane, namespace: str) -> Job:
    job = create(plane, namespace, "digits")
    job.trains()
    job.is_verified()
    job.reaches("Succeeded")
    job.closes()
    return job


def test_get_wait_describe(kubectl: Kubectl, finished: Job, namespace: str) -> None:
    header, row = kubectl("get", "dtj", "-n", namespace).splitlines()
    assert header.split() == ["NAME", "PHASE", "PROGRESS", "VAL-GAP", "MODEL", "RESTARTS", "AGE"]
    assert row.split()[:3] == ["digits", "Succeeded", "100"]
    assert "models:/team.digits/1" in row
    assert "MESSAGE" in kubectl("get", "dtj", "-n", namespace, "-o", "wide")

    assert "condition met" in kubectl("wait", "--for=condition=Complete", "dtj/digits", "-n", namespace, "--timeout=30s")

    described = kubectl("describe", "dtj", "digits", "-n", namespace)
    assert all(reason in described.split("Events:")[1] for reason in ("RunCreated", "TrainingStarted", "Trained", "ModelRegistered"))


def test_all_lists_training_jobs(kubectl: Kubectl, plane: ControlPlane, namespace: str) -> None:
    create(plane, namespace, "listed", suspend=True)

    assert "listed" in kubectl("get", "all", "-n", namespace)


@pytest.mark.parametrize(("field", "says"), [
    ("dtj", "DropoutTrainingJob"), ("dtj.spec", "Immutable but for"), ("dtj.spec.dropout", "first match wins"),
    ("dtj.spec.dropout.layers.rate", "Probability that an element"), ("dtj.spec.seed", "every random stream"),
    ("dtj.spec.suspend", "starts over from the first epoch"), ("dtj.status.phase", "ENUM: Pending Queued Starting"),
    ("dtj.spec.gate", "cannot be switched off"), ("dtj.spec.from", "existing candidate to verify again"),
    ("dtj.spec.from.run", "status.run.id"),
])
def test_explain_tells_what_a_field_does(field: str, says: str, kubectl: Kubectl) -> None:
    assert says in " ".join(kubectl("explain", field).split())


@pytest.mark.parametrize("sample", sorted((ROOT / "crds/samples").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_sample_is_taken_as_it_stands(sample: Path, kubectl: Kubectl, namespace: str) -> None:
    kubectl("apply", "-n", namespace, "-f", str(sample), "--validate=strict")
    stored = json.loads(kubectl("get", "dtj", "-n", namespace, "-o", "json"))["items"][0]["spec"]
    (job,) = [document for document in yaml.safe_load_all(sample.read_text()) if document["kind"] == "DropoutTrainingJob"]

    assert JobSpec.model_validate(stored) == JobSpec.model_validate(job["spec"])


@pytest.mark.parametrize(("written", "read"), [
    ("1e-3", 0.001), ("1E3", 1000), (".5", 0.5), ("+1", 1), ("0x10", 16), ("0o10", 8), ("010", 8), ("1_000", 1000), ("on", True),
    ("yes", True), ("Off", False), ("n", False), ("~", None), ("Null", None), ("1:30", "1:30"), ("2026-01-01", "2026-01-01"), ('"1"', "1"),
])
def test_a_scalar_is_read_as_ever(written: str, read: object, kubectl: Kubectl) -> None:
    """What any other reader of manifests must agree with; PyYAML does not in 1e-3 (text), 0o10 (text), 1:30 (90) and dates."""
    text = f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: a}}\nvalue: {written}\n"
    stored = json.loads(kubectl("create", "--dry-run=client", "--validate=false", "-o", "json", "-f", "-", stdin=text))["value"]

    assert (stored, type(stored)) == (read, type(read))


def test_a_learning_rate_may_have_an_exponent(kubectl: Kubectl, namespace: str) -> None:
    text = (ROOT / "crds/samples/digits-cnn.yaml").read_text().replace("learningRate: 0.002", "learningRate: 1e-3")
    kubectl("apply", "-n", namespace, "-f", "-", stdin=text)

    stored = json.loads(kubectl("get", "dtj", "digits-cnn", "-n", namespace, "-o", "json"))
    assert JobSpec.model_validate(stored["spec"]).training.optimizer.learning_rate == 0.001


def test_a_wrong_sample_is_refused_with_the_field(kubectl: Kubectl, namespace: str) -> None:
    text = (ROOT / "crds/samples/digits-cnn.yaml").read_text().replace("rate: 0.25", "rate: 1.25")

    assert "spec.dropout.rate" in kubectl("apply", "-n", namespace, "-f", "-", stdin=text, check=False)
