import json
from collections.abc import Callable
from pathlib import Path

import pytest
from dropout_testing import zoo
from mlflow import MlflowClient
from torch import nn

from dropout_api.candidate import CONFIG, HELDOUT, MANIFEST, PROGRAM
from dropout_api.task import VerifyTask
from dropout_trainer.verify.run import verify

Given = Callable[..., VerifyTask]
Broken = Callable[..., Path]


def registered(client: MlflowClient, name: str) -> bool:
    return bool(client.search_registered_models(f"name = 'team.{name}'"))


def test_because_dropout_is_on_and_the_message_names_layer_op_and_remedy(client: MlflowClient, given: Given, broken: Broken) -> None:
    network = nn.Sequential(nn.Linear(zoo.FEATURES, 16), nn.Dropout(0.5), nn.Linear(16, zoo.CLASSES))
    task = given(broken(network, "train"), "dropout-on")

    verdict = verify(task, client)

    assert verdict.verdict == "Failed"
    assert verdict.failed[:2] == ["graph", "decomposed_graph"]
    assert "aten.dropout (train=True, p=0.5): dropout is on in layer '1'" in verdict.message
    assert "Remedy: use nn.Dropout" in verdict.message
    assert verdict.model_uri is None
    assert not registered(client, "dropout-on")
    report = json.loads((Path(client.download_artifacts(task.run.id, "gate/report.json"))).read_text())
    assert report["verdict"] == "Failed"
    assert "dropout is on" in Path(client.download_artifacts(task.run.id, "gate/report.html")).read_text()
    assert client.get_run(task.run.id).data.tags["dropout.verdict"] == "Failed"


def test_because_it_misses_a_quality_bar(client: MlflowClient, given: Given, sound: Path) -> None:
    verdict = verify(given(sound, "bar", gate=[{"metric": "loss", "max": 0.001}]), client)

    assert (verdict.verdict, verdict.failed) == ("Failed", ["quality"])
    assert "above max 0.001" in verdict.message
    assert not registered(client, "bar")


def test_because_training_ended_without_one(client: MlflowClient, given: Given) -> None:
    verdict = verify(given(None, "empty"), client)

    assert (verdict.verdict, verdict.failed, verdict.sha256) == ("Failed", ["candidate"], None)
    assert "holds no candidate" in verdict.message


def _extra(folder: Path) -> None:
    (folder / "sitecustomize.py").write_text("boom")


def _cut(folder: Path) -> None:
    (folder / PROGRAM).unlink()


def _altered(folder: Path) -> None:
    (folder / PROGRAM).write_bytes((folder / PROGRAM).read_bytes()[:-1] + b"\1")


def _no_json(folder: Path) -> None:
    (folder / MANIFEST).write_text("{")


def _no_config(folder: Path) -> None:
    (folder / CONFIG).write_text('{"seed": "x"}')
    zoo.seal(folder)


def _other_shapes(folder: Path) -> None:
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | {"task": {"outputs": 7}}))
    zoo.seal(folder)


def _no_tensors(folder: Path) -> None:
    (folder / HELDOUT).write_bytes(b"\xff" * 64)
    zoo.seal(folder)


def _no_program(folder: Path) -> None:
    (folder / PROGRAM).write_bytes(b"not a zip archive at all, but long enough")
    zoo.seal(folder)


SPOILT = {
    "a file too many": (_extra, "candidate", "sitecustomize.py"),
    "a file too few": (_cut, "candidate", PROGRAM),
    "an altered program": (_altered, "digests", PROGRAM),
    "a manifest that is not JSON": (_no_json, "digests", MANIFEST),
    "a config of another shape": (_no_config, "candidate", "config.json.seed"),
    "tensors of another shape": (_other_shapes, "candidate", "output is [40, 3]"),
    "no tensors": (_no_tensors, "candidate", HELDOUT),
    "no program": (_no_program, "archive", PROGRAM),
}


@pytest.mark.parametrize("how", SPOILT)
def test_because_it_has(how: str, client: MlflowClient, given: Given, broken: Broken) -> None:
    spoil, check, words = SPOILT[how]
    folder = broken(zoo.SOUND["mlp"].build())
    spoil(folder)
    name = how.replace(" ", "-").lower()

    verdict = verify(given(folder, name), client)

    assert (verdict.verdict, verdict.failed) == ("Failed", [check])
    assert words in verdict.message
    assert not registered(client, name)
