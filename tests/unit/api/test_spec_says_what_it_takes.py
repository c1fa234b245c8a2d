"""The model's own checks, for readers that have no API server before them, as `dropout run`."""

from typing import Any

import pytest
from pydantic import ValidationError

from dropout_api.builtins import describe
from dropout_api.spec import JobSpec, TrainingJobSpec


def base(**changes: Any) -> dict[str, Any]:
    return {"model": {"factory": "mlp"}, "data": {"factory": "sklearn"}, **changes}


@pytest.mark.parametrize(("changes", "field"), [
    ({"droput": {}}, "spec.droput"), ({"dropout": {"rate": 1}}, "spec.dropout.rate"), ({"seed": -1}, "spec.seed"),
    ({"seed": 2**32}, "spec.seed"), ({"gate": [{"metric": "loss"}]}, "spec.gate[0]"), ({"export": {"alias": "latest"}}, "spec.export"),
    ({"export": {"formats": ["ONNX"]}}, "formats: must hold PT2"), ({"export": {"formats": ["PT2", "PT2"]}}, "name each format once"),
    ({"export": {"formats": ["PT2", "TorchScript"]}}, "spec.export.formats[1]"), ({"export": {"formats": []}}, "spec.export.formats"),
    ({"export": {"mcPasses": 0}}, "spec.export.mcPasses"), ({"export": {"mcPasses": 1001}}, "spec.export.mcPasses"),
    ({"gate": [{"metric": "loss", "min": 2, "max": 1}]}, "min 2.0 is above max 1.0"), ({"training": {"epochs": 0}}, "spec.training.epochs"),
    ({"podTemplate": {"volumes": [{"name": "a", "hostPath": {"path": "/"}}]}}, "spec.podTemplate.volumes[0].hostPath"),
    ({"podTemplate": {"env": [{"name": "MLFLOW_X"}]}}, "MLFLOW_X"),
    ({"podTemplate": {"hostNetwork": True}}, "spec.podTemplate.hostNetwork"),
    ({"model": {"factory": "a/b.py"}}, "spec.model.factory"), ({"determinism": False}, "spec.determinism"),
    ({"model": None}, "model is required"), ({"data": None}, "data is required"), ({"from": {"run": "A" * 32}}, "spec.from.run"),
    ({"from": {"run": "a" * 32}}, "model does not go with spec.from"),
    ({"from": {"run": "a" * 32}, "model": None}, "data does not go with spec.from"),
    ({"from": {"run": "a" * 32}, "model": None, "data": None, "dropout": {"rate": 0.1}}, "dropout does not go with spec.from"),
    ({"from": {"run": "a" * 32}, "model": None, "data": None, "activeDeadlineSeconds": 9}, "activeDeadlineSeconds does not go"),
])
def test_a_wrong_field_is_named_as_in_the_manifest(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as error:
        JobSpec.model_validate(base(**changes))

    assert field in describe(error.value, "spec")


def test_a_spec_does_not_change() -> None:
    spec = JobSpec.model_validate(base())

    with pytest.raises(ValidationError):
        spec.seed = 1  # type: ignore[misc]


@pytest.mark.parametrize("factory", ["mlp", "a:b", "package.module:Class", "_private.m:f_1"])
def test_a_factory_is_a_built_in_or_a_callable(factory: str) -> None:
    assert TrainingJobSpec.model_validate(base(model={"factory": factory})).model.factory == factory


def test_a_job_that_trains_nothing_is_no_training_job() -> None:
    again = JobSpec.model_validate({"from": {"run": "a" * 32}, "gate": [{"metric": "loss", "max": 1}]})

    assert again.to_wire()["from"] == {"run": "a" * 32}
    with pytest.raises(ValidationError):
        TrainingJobSpec.model_validate(again.to_wire())
