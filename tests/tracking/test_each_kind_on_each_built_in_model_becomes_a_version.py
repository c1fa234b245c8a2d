"""Every kind of dropout on every built-in model: planned, applied, trained, read back, exported, judged, registered.

Where a kind has no place in a model, the plan says so. The data are real: digits as images, as sequences of rows, and as tokens.
"""

from typing import Any

import numpy as np
import pytest
from dropout_testing.device import LIMITS
from mlflow import MlflowClient
from sklearn.datasets import load_digits

from dropout_api.dropout import DropoutKind
from dropout_api.spec import TrainingJobSpec
from dropout_api.task import JobRef, RunRef, TrainTask, VerifyTask
from dropout_trainer.errors import StageFailure
from dropout_trainer.train.run import train
from dropout_trainer.train.telemetry import Telemetry
from dropout_trainer.train.tracking import Tracking
from dropout_trainer.verify.run import verify

ROWS = 240
MODELS: dict[str, tuple[dict[str, Any], str]] = {
    "mlp": ({"hidden": [16, 16]}, "images"), "cnn": ({"channels": [4, 8], "dense": 16}, "images"),
    "resnet": ({"blocks": [1, 1], "width": 4, "dropout": 0.1}, "images"),
    "transformer": ({"width": 8, "heads": 2, "layers": 1, "feedforward": 8}, "tokens"),
    "lstm": ({"hidden": 8, "layers": 2, "embedding": 8}, "tokens"),
}
SET: dict[str, Any] = {"action": "Set"}


def insert(after: str) -> dict[str, Any]:
    return {"action": "Insert", "type": after}


def wrap(match: str = "*", **rest: Any) -> dict[str, Any]:
    return {"action": "Wrap", "match": match, **rest}


RULES: dict[DropoutKind, dict[str, dict[str, Any]]] = {
    DropoutKind.STANDARD: {"mlp": SET, "cnn": SET, "resnet": SET, "transformer": SET, "lstm": SET},
    DropoutKind.SPATIAL: {
        "cnn": SET, "resnet": insert("Conv2d"), "transformer": insert("EncoderLayer"),
        "lstm": insert("LSTM"),
    },
    DropoutKind.ALPHA: {
        "mlp": insert("ReLU"), "cnn": insert("ReLU"), "resnet": insert("Conv2d"),
        "transformer": insert("EncoderLayer"), "lstm": insert("LSTM"),
    },
    DropoutKind.VARIATIONAL: {"transformer": insert("EncoderLayer"), "lstm": insert("LSTM")},
    DropoutKind.EMBEDDING: {"transformer": wrap(type="Embedding"), "lstm": wrap(type="Embedding")},
    DropoutKind.DROP_CONNECT: {
        "mlp": wrap(type="Linear"), "cnn": wrap(type="Linear"), "resnet": wrap(type="Linear"),
        "transformer": wrap(type="Linear"), "lstm": wrap(type="LSTM"),
    },
    DropoutKind.STOCHASTIC_DEPTH: {
        "mlp": wrap("hidden2"), "cnn": wrap("features.block2"), "resnet": SET,
        "transformer": wrap(type="SelfAttention"), "lstm": wrap(type="LSTM"),
    },
    DropoutKind.ATTENTION: {"transformer": SET},
}
"""A rule for each pair that goes together, but for `kind` and `rate`."""
PAIRS = [(kind, model) for kind in DropoutKind for model in MODELS]
TOGETHER = [pair for pair in PAIRS if pair[1] in RULES[pair[0]]]


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder, digits = tmp_path_factory.mktemp("digits"), load_digits()
    arrays = {
        "images": (digits.images[:ROWS, None] / 16).astype("float32"),
        "tokens": (digits.images[:ROWS].reshape(ROWS, 64)[:, ::4] + 1).astype("int64"),
    }
    for name, inputs in arrays.items():
        np.savez(folder / f"{name}.npz", inputs=inputs, targets=digits.target[:ROWS])
    return {name: str(folder / f"{name}.npz") for name in arrays}


def spec_for(kind: DropoutKind, model: str, rule: dict[str, Any], files: dict[str, str]) -> TrainingJobSpec:
    args, data = MODELS[model]
    return TrainingJobSpec.model_validate({
        "model": {"factory": model, "args": args}, "data": {"factory": "npz", "args": {"uri": files[data]}},
        "dropout": {"layers": [{"match": "*", "kind": kind, "rate": 0.2, **rule}]}, "training": {"epochs": 1, "batchSize": 64},
        "resourcesPerNode": {"requests": {"cpu": "1"}, "limits": LIMITS},
    })


@pytest.mark.parametrize(("kind", "model"), TOGETHER, ids=lambda value: str(value))
def test_it_becomes_a_version(client: MlflowClient, kind: DropoutKind, model: str, files: dict[str, str]) -> None:
    spec = spec_for(kind, model, RULES[kind][model], files)
    experiment = client.get_experiment_by_name("team.digits")
    assert experiment is not None
    run = RunRef(id=client.create_run(experiment.experiment_id).info.run_id, experiment_id=experiment.experiment_id)
    job = JobRef(cluster="c", namespace="team", name=f"{model}-{kind.lower()}", uid=f"uid-{model}-{kind}")

    train(TrainTask(job=job, attempt=1, run=run, spec=spec), Tracking(run.id), Telemetry(1, 1))

    params = client.get_run(run.id).data.params
    action = RULES[kind][model]["action"]
    planned = [name.removesuffix(".kind") for name, value in params.items() if name.startswith("dropout.") and value == kind]
    assert any((params[f"{layer}.rate"], params[f"{layer}.action"]) == ("0.2", action) for layer in planned), params
    verdict = verify(VerifyTask(job=job, run=run, spec=spec), client)
    assert (verdict.verdict, verdict.message) == ("Passed", verdict.message)
    assert client.get_model_version(f"team.{job.name}", "1").tags["dropout.sha256"] == verdict.sha256


@pytest.mark.parametrize(("kind", "model"), [pair for pair in PAIRS if pair not in TOGETHER], ids=lambda value: str(value))
def test_or_the_plan_says_why_not(kind: DropoutKind, model: str, files: dict[str, str]) -> None:
    rule = {DropoutKind.ATTENTION: SET, DropoutKind.EMBEDDING: wrap()}.get(kind, insert("Linear"))
    spec = spec_for(kind, model, rule, files)
    task = TrainTask(
        job=JobRef(cluster="c", namespace="team", name="x", uid="u"), attempt=1, run=RunRef(id="a" * 32, experiment_id="1"), spec=spec)

    with pytest.raises(StageFailure, match=r"spec\.dropout\.layers.*(fits no|needs)") as end:
        train(task, Tracking("a" * 32), Telemetry(1, 1))
    assert end.value.reason in ("SpecInvalid", "UserCode")
