"""Changes to a right spec that break one rule of the CRD each, by the text of the rule. Whoever judges manifests must refuse them all."""

from typing import Any

Changes = dict[str, Any]
RUN = "a" * 32
AGAIN: Changes = {"from": {"run": RUN}, "model": None, "data": None}
"""Makes a spec one of a job that trains nothing."""


def template(**fields: Any) -> Changes:
    return {"podTemplate": fields}


def weights(**fields: Any) -> Changes:
    return {"model": {"factory": "mlp", "weights": fields}}


def moving(**schedule: Any) -> Changes:
    return {"dropout": {"layers": [{"rate": 0.1, "schedule": schedule}]}}


def mounted(place: str) -> Changes:
    return template(volumes=[{"name": "a", "emptyDir": {}}], volumeMounts=[{"name": "a", "mountPath": place}])


BREAKS: dict[str, list[Changes]] = {
    "spec.model is required": [{"model": None}], "spec.data is required": [{"data": None}],
    "spec.model does not go with": [{"from": {"run": RUN}, "data": None}, {"command": ["a"], "data": None}],
    "spec.data does not go with": [{"from": {"run": RUN}, "model": None}, {"command": ["a"], "model": None}],
    "spec.command does not go with": [{**AGAIN, "command": ["a"]}],
    "spec.image does not go with": [{**AGAIN, "image": "a:1"}],
    "spec.imagePullPolicy does not go with": [{**AGAIN, "imagePullPolicy": "Always"}],
    "spec.checkpoint does not go with": [{**AGAIN, "checkpoint": {"volumeClaim": "a"}}],
    "spec.activeDeadlineSeconds does not go with": [{**AGAIN, "activeDeadlineSeconds": 9}],
    "spec.dropout does not go with": [{**AGAIN, "dropout": {"rate": 0.1}}, {**AGAIN, "dropout": {"layers": [{"rate": 0.1}]}}],
    "spec.dropout.layers: a schedule": [
        {"training": {"compile": True}, "dropout": {"layers": [{"rate": 0.1, "schedule": {"kind": "Linear"}}]}}],
    "set min, max or both": [{"gate": [{"metric": "accuracy"}]}],
    "min is above max": [{"gate": [{"metric": "loss", "min": 2, "max": 1}]}],
    "class goes with": [{"gate": [{"metric": "accuracy", "class": "1", "min": 0.5}]}],
    "action Insert needs": [{"dropout": {"layers": [{"action": "Insert", "rate": 0.1}]}},
                            {"dropout": {"layers": [{"action": "Insert", "kind": "Attention", "rate": 0.1}]}}],
    "action Wrap needs": [{"dropout": {"layers": [{"action": "Wrap", "kind": "Standard", "rate": 0.1}]}}],
    "set exactly one of uri, run, model": [weights(), weights(uri="a", run=RUN), weights(strict=False)],
    "model goes with exactly one of alias and version": [
        weights(model="a"), weights(model="a", alias="b", version=1), weights(uri="a", alias="b"), weights(run=RUN, version=1)],
    "warmupEpochs does not go with": [{"training": {"scheduler": {"name": "OneCycle", "warmupEpochs": 1}}}],
    "momentum: goes with name SGD or RMSprop alone": [
        {"training": {"optimizer": {"momentum": 0.5}}}, {"training": {"optimizer": {"name": "Adam", "momentum": 0}}}],
    "stepEpochs: goes with name Step alone": [{"training": {"scheduler": {"name": "Cosine", "stepEpochs": 3}}}],
    "gamma: goes with name Step alone": [{"training": {"scheduler": {"gamma": 0.5}}}],
    "minFactor: goes with name Cosine or Step alone": [{"training": {"scheduler": {"name": "OneCycle", "minFactor": 0.1}}}],
    "startRate: goes with kind Linear alone": [moving(startRate=0.2), moving(kind="Early", startRate=0.2)],
    "fraction: goes with kind Linear or Early or Late alone": [moving(fraction=0.2), moving(kind="Curriculum", fraction=0.2)],
    "gamma: goes with kind Curriculum alone": [moving(kind="Linear", gamma=3)],
    "quantiles: the loss Quantile": [{"training": {"loss": {"name": "Quantile"}}},
                                     {"training": {"loss": {"name": "MAE", "quantiles": [0.5]}}}],
    "weights: give them or classWeights": [{"training": {"loss": {"weights": [1, 2], "classWeights": "Balanced"}}}],
    "folds: give 2 or more": [{"training": {"crossValidation": {}}}, {"training": {"crossValidation": {"folds": 1, "repeats": 2}}}],
    "'latest' is reserved": [{"export": {"alias": "latest"}}], "must hold PT2": [{"export": {"formats": ["ONNX"]}}],
    "set exactly one of volumeClaim and uri": [{"checkpoint": {}}, {"checkpoint": {"volumeClaim": "a", "uri": "s3://b/c"}}],
    "may not be at /checkpoints": [{"checkpoint": {"volumeClaim": "a"}, **mounted("/checkpoints")},
                                   {"checkpoint": {"volumeClaim": "a"}, **mounted("/checkpoints/mine")}],
    "names that start with": [template(env=[{"name": "DROPOUT_TASK"}]), template(env=[{"name": "A"}, {"name": "MLFLOW_X"}])],
    "set exactly one of persistentVolumeClaim": [
        template(volumes=[{"name": "a"}]), template(volumes=[{"name": "a", "emptyDir": {}, "configMap": {"name": "b"}}])],
}
SCHEMA: list[Changes] = [
    {"droput": {}}, {"training": {"batch_size": 8}}, {"dropout": {"rate": 1}}, {"dropout": {"rate": "0.5"}}, {"dropout": {"rate": -0.1}},
    {"training": {"epochs": 1.5}}, {"training": {"epochs": True}}, {"training": {"epochs": "3"}}, {"training": {"compile": "true"}},
    {"seed": 2**32}, {"determinism": False}, {"suspend": 1}, {"model": {"factory": "../a.py"}}, {"model": {}}, {"model": "mlp"},
    {"from": {}}, {"from": {"run": "A" * 32}}, {"gate": [{"metric": "f1", "min": 0}]}, {"gate": [None]}, {"export": {"formats": []}},
    {"export": {"formats": ["PT2", "PT2"]}}, {"training": {"metrics": ["accuracy", "accuracy"]}}, {"source": {"run": RUN}},
    {"training": {"earlyStopping": {"monitor": "val_acc"}}}, {"resourcesPerNode": {"limits": {"cpu": 1.5}}},
    {"training": {"optimizer": {"groups": [{"learningRate": 0.1}]}}}, template(hostNetwork=True), template(labels={"a": 1}),
    template(volumes=[{"name": "a", "hostPath": {"path": "/"}}]), {"gate": [{"metric": "loss", "max": 1e10}]},
    {"training": {"loss": {"quantiles": [1.0]}}}, {"ttlSecondsAfterFinished": {"failed": -1}},
]
"""What the types, ranges and enums of the schema refuse."""
FINE: list[Changes] = [
    {}, AGAIN, {"training": None}, {"dropout": {"rate": 0}}, {"training": {"epochs": 1e1}}, {"gate": None}, weights(uri="a"),
    weights(model="a", version=3), {"dropout": {"layers": [{"action": "Wrap", "kind": "DropConnect", "rate": 0.1}]}},
    {"training": {"crossValidation": {"repeats": 2}}}, {"resourcesPerNode": {"limits": {"cpu": 1, "memory": "1Gi"}}},
    {"training": {"optimizer": {"learningRate": 1}}}, {"checkpoint": {"volumeClaim": "a"}}, {"checkpoint": {"uri": "s3://a/b"}},
    {"checkpoint": {"uri": "/checkpoints"}, **mounted("/checkpoints")}, {"checkpoint": {"volumeClaim": "a"}, **mounted("/checkpointed")},
    {"training": {"optimizer": {"name": "AdamW", "momentum": 0.9}, "scheduler": {"name": "Cosine", "minFactor": 0.1, "gamma": 0.1}}},
    moving(kind="Linear", startRate=0.2, fraction=0.3, gamma=10), moving(kind="Curriculum", gamma=3), moving(kind="Late", fraction=0.1),
    template(labels={"a": None}), {"model": {"factory": "a:b", "args": {"x": None, "y": [1.0]}}},
]
"""What every judge must take."""
