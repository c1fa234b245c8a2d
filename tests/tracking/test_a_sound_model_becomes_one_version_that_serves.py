import json
from collections.abc import Callable
from pathlib import Path

import mlflow
import numpy as np
import pytest
from dropout_testing import zoo
from mlflow import MlflowClient
from torch import nn

from dropout_api.candidate import PROGRAM, Task
from dropout_api.names import Tag
from dropout_api.task import VerifyTask
from dropout_trainer.gate.candidate import sha256
from dropout_trainer.verify.run import verify

Given = Callable[..., VerifyTask]


def test_with_tags_signature_report_and_alias(client: MlflowClient, given: Given, sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = given(sound, "tagged", export={"alias": "champion"}, gate=[{"metric": "accuracy", "min": 0.9}])

    verdict = verify(task, client)

    assert (verdict.verdict, verdict.failed, verdict.model_uri) == ("Passed", [], "models:/team.tagged/1")
    assert verdict.metrics["test_accuracy"] == 1.0
    version = client.get_model_version_by_alias("team.tagged", "champion")
    assert str(version.version) == verdict.model_version
    assert version.run_id == task.run.id
    assert version.tags[Tag.DIGEST] == verdict.sha256 == sha256(sound / PROGRAM)
    assert (version.tags[Tag.VERDICT], version.tags[Tag.SEED], version.tags[Tag.UID]) == ("Passed", "42", "uid-tagged")
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    model = mlflow.pyfunc.load_model("models:/team.tagged/1")
    rows = np.random.default_rng(0).normal(size=(5, zoo.FEATURES)).astype("float32")
    first = model.predict(rows)
    assert first.shape == (5, zoo.CLASSES)
    assert np.array_equal(first, model.predict(rows))
    assert model.metadata.signature.inputs.to_dict()[0]["tensor-spec"]["shape"] == (-1, zoo.FEATURES)
    names = {info.path for info in client.list_artifacts(task.run.id, "gate")}
    assert names == {"gate/report.json", "gate/report.html"}
    report = json.loads(Path(mlflow.artifacts.download_artifacts(f"{verdict.report_uri}/report.json")).read_text())
    assert report["verdict"] == "Passed"
    assert {check["outcome"] for check in report["checks"]} == {"Passed"}


def test_of_quantiles_too(client: MlflowClient, given: Given, broken: Callable[..., Path]) -> None:
    task = Task(kind="Regression", outputs=3, loss="Quantile", quantiles=[0.1, 0.5, 0.9], deviation=[2.0])
    folder = broken(nn.Sequential(nn.Linear(zoo.FEATURES, 8), nn.Dropout(0.5), nn.Linear(8, 3)), task=task)

    verdict = verify(given(folder, "quantiles", gate=[{"metric": "r2", "min": 0.0}]), client)

    assert verdict.verdict == "Passed", verdict.message
    assert set(verdict.metrics) == {"test_loss", "test_mae", "test_r2"}
    model = mlflow.pyfunc.load_model("models:/team.quantiles/1")
    assert model.predict(np.zeros((4, zoo.FEATURES), "float32")).shape == (4, 3)
    assert model.metadata.signature.outputs.to_dict()[0]["tensor-spec"]["shape"] == (-1, 3)


def test_and_verifying_again_finds_it(client: MlflowClient, given: Given, sound: Path) -> None:
    task = given(sound, "again", export={"alias": "champion"})

    first, second = verify(task, client), verify(task, client)

    assert first == second
    assert len(client.search_model_versions("name = 'team.again'")) == 1


def test_while_an_alias_that_points_at_a_later_version_stays(client: MlflowClient, given: Given, sound: Path) -> None:
    early = given(sound, "alias-early", export={"alias": "champion", "model": "shared"})
    late = given(sound, "alias-late", export={"alias": "champion", "model": "shared"})
    for task in (early, late, early):
        verify(task, client)

    assert client.get_model_version_by_alias("team.shared", "champion").version == 2


def test_but_not_once_its_program_was_changed(client: MlflowClient, given: Given, sound: Path, tmp_path: Path) -> None:
    verify(given(sound, "changed"), client)
    folder = Path(mlflow.artifacts.download_artifacts("models:/team.changed/1", dst_path=str(tmp_path)))
    program = folder / "artifacts" / PROGRAM
    program.write_bytes(program.read_bytes() + b"x")

    with pytest.raises(ValueError, match="not loaded"):
        mlflow.pyfunc.load_model(str(folder))
