"""The API server itself refuses a wrong manifest, with no operator there, and its words name the field."""

from typing import Any

import pytest
from dropout_testing.control_plane import ControlPlane
from dropout_testing.jobs import collection, manifest, refused

DATA = {"factory": "sklearn", "args": {"name": "digits"}}
VOLUME = {"name": "data", "emptyDir": {}}
FROM: dict[str, Any] = {"from": {"run": "a" * 32}}
AGAIN = FROM | {"model": None, "data": None}


def env(*names: str) -> dict[str, Any]:
    return {"podTemplate": {"env": [{"name": name, "value": "x"} for name in names]}}


def volume(**source: Any) -> dict[str, Any]:
    return {"podTemplate": {"volumes": [{"name": "data", **source}]}}


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("misspelt field", {"droput": {"rate": 0.5}}, "spec.droput"),
    ("misspelt leaf", {"training": {"batchsize": 8}}, "spec.training.batchsize"),
    ("misspelt rule", {"dropout": {"layers": [{"rate": 0.1, "matches": "*"}]}}, "spec.dropout.layers[0].matches"),
    ("a rate of one", {"dropout": {"rate": 1.0}}, "spec.dropout.rate"),
    ("a rate above one", {"dropout": {"layers": [{"rate": 1.5}]}}, "spec.dropout.layers[0].rate"),
    ("a negative rate", {"dropout": {"rate": -0.1}}, "spec.dropout.rate"),
    ("a rate that is text", {"dropout": {"rate": "0.5"}}, "spec.dropout.rate"),
    ("a rule without a rate", {"dropout": {"layers": [{"match": "*"}]}}, "spec.dropout.layers[0].rate"),
    ("an unknown kind", {"dropout": {"layers": [{"kind": "Gaussian", "rate": 0.1}]}}, "spec.dropout.layers[0].kind"),
    ("an unknown optimiser", {"training": {"optimizer": {"name": "Lion"}}}, "spec.training.optimizer.name"),
    ("a learning rate of zero", {"training": {"optimizer": {"learningRate": 0}}}, "spec.training.optimizer.learningRate"),
    ("no epochs", {"training": {"epochs": 0}}, "spec.training.epochs"),
    ("half an epoch", {"training": {"epochs": 1.5}}, "spec.training.epochs"),
    ("a seed below zero", {"seed": -1}, "spec.seed"),
    ("a seed beyond 32 bits", {"seed": 2**32}, "spec.seed"),
    ("determinism as YAML's boolean", {"determinism": False}, "spec.determinism"),
    ("no model", {"model": None}, "spec.model is required"),
    ("no data", {"data": None}, "spec.data is required"),
    ("a run that is no id", {"from": {"run": "models:/team.digits/1"}}, "spec.from.run"),
    ("a run's id in capitals", {"from": {"run": "A" * 32}}, "spec.from.run"),
    ("no run", {"from": {}}, "spec.from.run"),
    ("a model with a candidate", FROM | {"data": None}, "spec.model does not go with spec.from"),
    ("data with a candidate", FROM | {"model": None}, "spec.data does not go with spec.from"),
    ("a dropout rate for a candidate", AGAIN | {"dropout": {"rate": 0.1}}, "spec.dropout does not go with spec.from"),
    ("a dropout rule for a candidate", AGAIN | {"dropout": {"layers": [{"rate": 0.1}]}}, "spec.dropout does not go with spec.from"),
    ("an image for a candidate", AGAIN | {"image": "a:1"}, "spec.image does not go with spec.from"),
    ("a pull policy for a candidate", AGAIN | {"imagePullPolicy": "Always"}, "spec.imagePullPolicy does not go with spec.from"),
    ("training time for a candidate", AGAIN | {"activeDeadlineSeconds": 9}, "spec.activeDeadlineSeconds does not go with spec.from"),
    ("no factory", {"model": {}}, "spec.model.factory"),
    ("a factory that is a path", {"model": {"factory": "../model.py"}}, "spec.model.factory"),
    ("a gate without a bound", {"gate": [{"metric": "accuracy"}]}, "spec.gate[0]"),
    ("a gate that nothing passes", {"gate": [{"metric": "loss", "min": 2, "max": 1}]}, "spec.gate[0]"),
    ("inserting nothing in particular", {"dropout": {"layers": [{"action": "Insert", "rate": 0.1}]}}, "spec.dropout.layers[0].action"),
    ("wrapping with what is inserted", {"dropout": {"layers": [{"action": "Wrap", "kind": "Spatial", "rate": 0.1}]}},
     "spec.dropout.layers[0].action"),
    ("a schedule that compiling rules out", {
        "training": {"compile": True}, "dropout": {"layers": [{"rate": 0.1, "schedule": {"kind": "Linear"}}]}},
     "spec.dropout.layers: a schedule does not go with training.compile"),
    ("two warm-ups", {"training": {"scheduler": {"name": "OneCycle", "warmupEpochs": 1}}}, "spec.training.scheduler"),
    ("a quantile loss without quantiles", {"training": {"loss": {"name": "Quantile"}}}, "spec.training.loss"),
    ("quantiles of another loss", {"training": {"loss": {"name": "MSE", "quantiles": [0.5]}}}, "spec.training.loss"),
    ("two weightings of classes", {"training": {"loss": {"classWeights": "Balanced", "weights": [1]}}}, "spec.training.loss"),
    ("one fold", {"training": {"crossValidation": {"folds": 1}}}, "spec.training.crossValidation"),
    ("no trial at all", {"training": {"crossValidation": {}}}, "spec.training.crossValidation"),
    ("a monitor that nothing measures", {"training": {"earlyStopping": {"monitor": "val_f1"}}}, "spec.training.earlyStopping.monitor"),
    ("weights from two places", {"model": {"factory": "mlp", "weights": {"uri": "a", "run": "a" * 32}}}, "spec.model.weights"),
    ("weights of no version", {"model": {"factory": "mlp", "weights": {"model": "digits"}}}, "spec.model.weights"),
    ("weights of two versions", {"model": {"factory": "mlp", "weights": {"model": "digits", "alias": "a", "version": 1}}},
     "spec.model.weights"),
    ("a class of a metric that has none", {"gate": [{"metric": "accuracy", "class": "1", "min": 0.5}]}, "spec.gate[0].metric"),
    ("an unknown metric", {"gate": [{"metric": "f1", "min": 0.5}]}, "spec.gate[0].metric"),
    ("an alias that MLflow keeps", {"export": {"alias": "latest"}}, "spec.export.alias"),
    ("formats without PT2", {"export": {"formats": ["ONNX"]}}, "spec.export.formats"),
    ("a format twice", {"export": {"formats": ["PT2", "PT2"]}}, "spec.export.formats[1]"),
    ("an unknown format", {"export": {"formats": ["PT2", "TorchScript"]}}, "spec.export.formats[1]"),
    ("no passes of MC dropout", {"export": {"mcPasses": 0}}, "spec.export.mcPasses"),
    ("an experiment of another tenant", {"tracking": {"experiment": "a/../b"}}, "spec.tracking.experiment"),
    ("a model name with a slash", {"export": {"model": "team/model"}}, "spec.export.model"),
    ("the platform's variable", env("DROPOUT_TASK"), "spec.podTemplate.env[0].name"),
    ("MLflow's variable", env("FINE", "MLFLOW_TRACKING_URI"), "spec.podTemplate.env[1].name"),
    ("a volume from the host", volume(hostPath={"path": "/"}), "hostPath"),
    ("a volume of two sources", volume(emptyDir={}, configMap={"name": "a"}), "spec.podTemplate.volumes[0]"),
    ("a volume of no source", volume(), "spec.podTemplate.volumes[0]"),
    ("the host's network", {"podTemplate": {"hostNetwork": True}}, "spec.podTemplate.hostNetwork"),
    ("containers of one's own", {"podTemplate": {"containers": []}}, "spec.podTemplate.containers"),
    ("a security context", {"podTemplate": {"securityContext": {}}}, "spec.podTemplate.securityContext"),
    ("a deadline of zero", {"activeDeadlineSeconds": 0}, "spec.activeDeadlineSeconds"),
    ("a negative time to live", {"ttlSecondsAfterFinished": {"failed": -1}}, "spec.ttlSecondsAfterFinished.failed"),
]


@pytest.mark.parametrize(("spec", "field"), [(spec, field) for _, spec, field in WRONG], ids=[name for name, _, _ in WRONG])
def test_refuses(spec: dict[str, Any], field: str, plane: ControlPlane, namespace: str) -> None:
    assert field in refused(plane, namespace, manifest("wrong", **spec))


@pytest.mark.parametrize("name", ["x" * 53, "dotted.name"])
def test_refuses_a_name_that_cannot_name_its_jobs(name: str, plane: ControlPlane, namespace: str) -> None:
    assert "metadata.name" in refused(plane, namespace, manifest(name))


def test_refuses_a_manifest_without_a_spec(plane: ControlPlane, namespace: str) -> None:
    body = {name: value for name, value in manifest("empty").items() if name != "spec"}

    assert "spec" in refused(plane, namespace, body)


def test_takes_the_longest_name(plane: ControlPlane, namespace: str) -> None:
    made = plane.request("POST", collection(namespace), manifest("x" * 52))

    assert made["status"]["phase"] == "Pending"


def test_takes_a_candidate_in_place_of_a_model_and_its_data(plane: ControlPlane, namespace: str) -> None:
    made = plane.request("POST", collection(namespace), manifest("again", **AGAIN, gate=[{"metric": "accuracy", "min": 0.5}]))

    assert (made["spec"]["from"], made["spec"].keys() & {"model", "data"}) == ({"run": "a" * 32}, set())


def test_fills_in_the_defaults(plane: ControlPlane, namespace: str) -> None:
    spec = plane.request("POST", collection(namespace), manifest("bare"))["spec"]

    assert (spec["seed"], spec["determinism"], spec["suspend"]) == (42, "WarnOnly", False)
    assert spec["export"] == {"formats": ["PT2"]}
    assert spec["training"]["optimizer"] == {"learningRate": 0.001, "momentum": 0.9, "name": "AdamW", "weightDecay": 0.01, "groups": []}


def test_a_user_cannot_set_status_with_the_manifest(plane: ControlPlane, namespace: str) -> None:
    forged = manifest("forged") | {"status": {"phase": "Succeeded", "model": {"name": "a", "version": "1", "uri": "models:/a/1"}}}

    status = plane.request("POST", collection(namespace), forged)["status"]

    assert (status["phase"], "model" in status) == ("Pending", False)
