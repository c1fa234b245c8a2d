"""Every mistake once, each with its field and what would be right; nothing that only follows from another mistake."""

from typing import Any

import pytest

from dropout_api.problems import Problem, problems, summary
from dropout_api.problems.manifests import is_training_job, manifest_problems

DATA = {"factory": "sklearn", "args": {"name": "digits"}}
CSV = {"factory": "csv", "args": {"uri": "rows.csv", "target": "y", "task": "Regression"}}
SERIES = {"factory": "series", "args": {"uri": "a", "column": "b", "window": 4}}


def told(**changes: Any) -> dict[str, str]:
    found = problems({"model": {"factory": "mlp"}, "data": DATA, **changes})
    assert len({problem.field for problem in found}) == len(found), found
    return {problem.field: problem.message for problem in found}


def manifest(**changes: Any) -> dict[str, Any]:
    return {
        "apiVersion": "training.dropout.dev/v1alpha1", "kind": "DropoutTrainingJob", "metadata": {"name": "digits"},
        "spec": {"model": {"factory": "mlp"}, "data": DATA}, **changes,
    }


def test_ten_different_mistakes_in_one_manifest() -> None:
    wrong = manifest(metadata={"name": "digits.v2"}, spec={
        "model": {"factory": "mlp", "args": {"hiden": [256]}}, "data": {"factory": "sklearn", "args": {"name": "iris"}},
        "dropuot": {"rate": 1.5},
        "training": {"epochs": "ten", "optimizer": {"name": "Adamw"}, "metrics": ["mae"], "earlyStopping": {"mode": "Max"}},
        "gate": [{"metric": "accuracy"}, {"metric": "accuracy", "min": 95}], "determinism": False, "export": {"formats": ["ONNX"]},
    })

    found = {problem.field: problem.message for problem in manifest_problems(wrong)}
    says = {
        "metadata.name": "no dots", "spec.dropuot": "did you mean dropout?", "spec.dropout.rate": "must be below 1 (given: 1.5)",
        "spec.model.args.hiden": "did you mean hidden?", "spec.data.args.name": "must be one of digits, breast_cancer, wine",
        "spec.training.epochs": 'must be a whole number (given: "ten")', "spec.training.optimizer.name": "did you mean AdamW?",
        "spec.training.metrics[0]": "mae is no metric of class numbers; use one of loss, accuracy",
        "spec.training.earlyStopping.mode": "use Auto or Min", "spec.gate[0]": "set min, max or both",
        "spec.gate[1].min": "write 0.95 for 95 %", "spec.determinism": "write it in quotes", "spec.export.formats": "must hold PT2",
    }
    assert found.keys() == says.keys()
    assert [field for field, words in says.items() if words not in found[field]] == []


@pytest.mark.parametrize(("changes", "field", "says"), [
    ({"model": None, "data": None}, ["spec.model", "spec.data"], "is required"),
    ({"from": {"run": "x"}, "model": None, "data": None}, ["spec.from.run"], "32 digits"),
    ({"from": {"run": "a" * 32}}, ["spec.model", "spec.data"], "does not go with spec.from"),
    ({"model": "mlp"}, ["spec.model"], "must be a mapping"), ({"model": {"factory": 3}}, ["spec.model.factory"], "must be text"),
    ({"model": None, "modle": {"factory": "mlp", "args": {"dropout": 2}}}, ["spec.modle", "spec.model.args.dropout"], ""),
    ({"dropout": {"layers": [{"rates": 0.1}]}}, ["spec.dropout.layers[0].rates"], "did you mean rate?"),
    ({"dropout": {"layers": [{"match": "a"}, {"rate": 2}, {"rate": 0.1, "kind": "X"}]}},
     ["spec.dropout.layers[0].rate", "spec.dropout.layers[1].rate", "spec.dropout.layers[2].kind"], ""),
    ({"dropout": {"layers": [{"rate": 2}, {"rate": 0.1, "schedule": {"kind": "Linear"}}]}, "training": {"compile": True}},
     ["spec.dropout.layers[0].rate", "spec.dropout.layers[1].schedule"], ""),
    ({"export": {"formats": ["TorchScript"]}}, ["spec.export.formats[0]"], "must be one of PT2, ONNX"),
    ({"export": {"formats": ["ONNX"], "alias": "latest"}}, ["spec.export.formats", "spec.export.alias"], ""),
    ({"training": {"metrics": ["accuracy", "f1_macro", "accuracy"]}}, ["spec.training.metrics[2]"], "twice"),
    ({"training": {"batch_size": 8}}, ["spec.training.batch_size"], "did you mean batchSize?"),
    ({"nodes": 2, "resourcesPerNode": {"limits": {"nvidia.com/mig-1g.10gb": 2, "nvidia.com/gpu": "1"}}, "training": {"batchSize": 11}},
     ["spec.training.batchSize"], "11 rows are too few for 6 processes; use 12 or more"),
    ({"nodes": 2, "processesPerNode": 2, "training": {"batchSize": 8, "compile": True}}, ["spec.training.compile"], "4 processes"),
    ({"training": {"epochs": True, "compile": "true"}}, ["spec.training.epochs", "spec.training.compile"], ""),
    ({"training": {"optimizer": {"learningRate": "1e-3"}}}, ["spec.training.optimizer.learningRate"], "write it without quotes"),
    ({"resourcesPerNode": {"limits": {"cpu": 1.5}}}, ["spec.resourcesPerNode.limits.cpu"], "text or a whole number (given: 1.5); write it"),
    ({"data": {"factory": "csv", "args": {"uri": "a", "target": [""]}}}, ["spec.data.args.target[0]"], "at least 1"),
    ({"data": {"factory": "csv", "args": {"uri": "a", "target": 5}}}, ["spec.data.args.target"], "text or a list (given: 5)"),
    ({"model": {"factory": "mpl"}}, ["spec.model.factory"], "did you mean mlp?"),
    ({"model": {"factory": "transformer", "args": {"width": 10, "heads": 4}}}, ["spec.model.args.width"], "no multiple of heads"),
    ({"podTemplate": {"volumeMounts": [{"name": "a", "mountPath": "/a"}]}}, ["spec.podTemplate.volumeMounts[0].name"], "no volume 'a'"),
    ({"podTemplate": {"volumes": [{"name": "dropout-checkpoints", "emptyDir": {}}]}}, ["spec.podTemplate.volumes[0].name"], "platform's"),
    ({"checkpoint": {"volumeClaim": "a"}, "podTemplate": {"volumes": [{"name": "a", "emptyDir": {}}], "volumeMounts": [
        {"name": "a", "mountPath": "/checkpoints/"}]}}, ["spec.podTemplate.volumeMounts[0].mountPath"], "spec.checkpoint.volumeClaim"),
    ({"checkpoint": {"keep": 1}}, ["spec.checkpoint.volumeClaim"], "exactly one"),
    ({"colour": 1}, ["spec.colour"], "known: model, data, from"), ({"seed": -1}, ["spec.seed"], "at least 0 (given: -1)"),
])
def test_one_line_for_each_mistake_and_none_for_what_follows_from_it(changes: dict[str, Any], field: list[str], says: str) -> None:
    found = told(**changes)

    assert sorted(found) == sorted(field)
    assert says in found[field[0]]


@pytest.mark.parametrize(("changes", "field"), [
    ({"training": {"loss": {"name": "MAE"}}}, "spec.training.loss.name"),
    ({"data": CSV, "training": {"loss": {"name": "CrossEntropy"}}}, "spec.training.loss.name"),
    ({"data": CSV, "training": {"loss": {"classWeights": "Balanced"}}}, "spec.training.loss.classWeights"),
    ({"data": CSV, "gate": [{"metric": "accuracy", "min": 0.5}]}, "spec.gate[0].metric"),
    ({"data": CSV, "training": {"earlyStopping": {"monitor": "val_f1_macro"}}}, "spec.training.earlyStopping.monitor"),
    ({"data": CSV, "training": {"metrics": ["interval_coverage"]}}, "spec.training.metrics[0]"),
    ({"data": {"factory": "a:b"}, "training": {"loss": {"name": "MSE"}, "metrics": ["accuracy"]}}, "spec.training.metrics[0]"),
    ({"training": {"earlyStopping": {"monitor": "val_accuracy", "mode": "Min"}}}, "spec.training.earlyStopping.mode"),
    ({"gate": [{"metric": "loss", "max": -1}]}, "spec.gate[0].max"),
    ({"data": {"factory": "text", "args": {"uri": "a", "text": "b", "target": "c"}}}, "spec.model.factory"),
    ({"data": {**CSV, "augmentation": [{"kind": "RandomCrop"}]}}, "spec.data.augmentation[0].kind"),
    ({"training": {"epochs": 3, "scheduler": {"warmupEpochs": 5}}}, "spec.training.scheduler.warmupEpochs"),
    ({"data": SERIES, "training": {"crossValidation": {"folds": 5}}}, "spec.training.crossValidation.folds"),
])
def test_what_cannot_be_together_is_told_without_a_look_at_data(changes: dict[str, Any], field: str) -> None:
    assert list(told(**changes)) == [field]


@pytest.mark.parametrize("changes", [
    {}, {"training": None, "gate": None, "from": None}, {"dropout": {"rate": 0}}, {"training": {"epochs": 10.0}},
    {"data": {"factory": "a:b"}, "training": {"metrics": ["mae", "accuracy"]}},
    {"data": {"factory": "npz", "args": {"uri": "a"}}, "gate": [{"metric": "r2", "min": 0}]},
    {"gate": [{"metric": "accuracy", "baseline": "champion", "min": -0.01, "max": 5}]},
    {"data": CSV, "training": {"loss": {"name": "Quantile", "quantiles": [0.1, 0.5, 0.9]}, "metrics": ["interval_coverage"]}},
    {"model": None, "data": None, "from": {"run": "a" * 32}, "gate": [{"metric": "mae", "max": 1}]},
    {"model": {"factory": "a:b", "args": {"anything": None}}},
    {"data": SERIES, "training": {"crossValidation": {"repeats": 3}, "epochs": 5, "scheduler": {"warmupEpochs": 5}}},
])
def test_what_may_be_right_is_not_told(changes: dict[str, Any]) -> None:
    assert told(**changes) == {}


@pytest.mark.parametrize("spec", [None, [], "x", 3, {"model": []}, {"model": {"factory": "mlp", "args": []}}, {"gate": {}}])
def test_any_json_is_judged(spec: Any) -> None:
    assert problems(spec)


@pytest.mark.parametrize(("changes", "fields"), [
    ({"apiVersion": "training.dropout.dev/v1"}, ["apiVersion"]), ({"kind": "DropoutTraningJob"}, ["kind"]),
    ({"metadata": {"name": "x" * 53}}, ["metadata.name"]), ({"metadata": {}}, ["metadata.name"]), ({"metadata": None}, ["metadata"]),
    ({"metadata": {"name": 17}}, ["metadata.name"]), ({"metadata": {"generateName": "sweep-"}}, []),
    ({"metadata": {"name": "a", "lables": {}, "labels": {"v": 1}}}, ["metadata.lables", "metadata.labels.v"]),
    ({"spec": None}, ["spec"]), ({"spec": None, "specs": {}}, ["specs"]), ({"metadata": {"name": "x" * 52}}, []),
])
def test_a_manifest_is_judged_around_its_spec(changes: dict[str, Any], fields: list[str]) -> None:
    assert [problem.field for problem in manifest_problems(manifest(**changes))] == fields


def test_other_objects_in_a_file_are_none_of_ours_but_a_misspelt_kind_is() -> None:
    assert not is_training_job({"apiVersion": "v1", "kind": "ConfigMap"})
    assert all(map(is_training_job, [{"apiVersion": "v1", "kind": "DropoutTrainigJob"}, {"kind": "Job"}, {}, manifest(kind="Job")]))


def test_a_summary_is_bounded_and_says_how_many_it_leaves_out() -> None:
    found = [Problem(f"spec.field{number}", "x" * 90) for number in range(100)]
    short = summary(found)

    assert 1300 < len(short) < 1600
    assert short.endswith("; and 86 more, which `dropout validate` prints")
    assert summary([Problem("a", "b"), Problem("c", "d")]) == "a: b; c: d"
    assert len(summary([Problem("a", "x" * 9000)])) <= 1500
    assert summary([]) == ""
