"""A bar with a baseline compares with one version, on the same rows, and only with one that is what the gate has passed."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from dropout_testing import zoo
from mlflow import MlflowClient
from torch import nn

from dropout_api.candidate import Task
from dropout_api.names import Tag
from dropout_api.report import VerifyReport
from dropout_api.task import VerifyTask
from dropout_trainer.gate import gate
from dropout_trainer.verify import baseline, signing
from dropout_trainer.verify.run import verify

Given = Callable[..., VerifyTask]
FilesOf = Callable[[str], Path]
NOT_WORSE = [{"metric": "accuracy", "baseline": "champion", "min": -0.01}]
BETTER = [{"metric": "accuracy", "baseline": "champion", "min": 0.01}]
CHAMPION = {"alias": "champion"}


def network(seed: int, outputs: int = zoo.CLASSES) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(zoo.FEATURES, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, outputs))


@pytest.fixture(scope="module")
def better(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A candidate that is right in all of its held-out rows, where the first champion is not."""
    return zoo.candidate(tmp_path_factory.mktemp("better") / "candidate", network(1)).folder


@pytest.fixture(scope="module")
def worse(tmp_path_factory: pytest.TempPathFactory, champion: nn.Module) -> Path:
    """One whose held-out targets are what the first champion answers."""
    mine = network(2)
    made = zoo.candidate(tmp_path_factory.mktemp("worse") / "candidate", mine)
    zoo.write_heldout(made.folder, replace(zoo.heldout_of(mine), target=zoo.heldout_of(champion).target))
    zoo.seal(made.folder)
    return made.folder


@pytest.fixture(scope="module")
def champion() -> nn.Module:
    return network(0)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, champion: nn.Module) -> Path:
    return zoo.candidate(tmp_path_factory.mktemp("first") / "candidate", champion).folder


@pytest.fixture
def job(client: MlflowClient, given: Given, first: Path) -> Callable[..., Callable[..., VerifyTask]]:
    """Makes a model's first champion; gives what makes the tasks of later jobs that train the same model."""
    def begin(model: str, keys: signing.Keys = signing.UNSIGNED, gate: Any = ()) -> Callable[..., VerifyTask]:
        verdict = verify(given(first, f"{model}-first", export=CHAMPION | {"model": model}, gate=gate), client, keys)
        assert verdict.model_version == "1", verdict.message
        return lambda folder, name, **spec: given(folder, f"{model}-{name}", **({"export": CHAMPION | {"model": model}} | spec))

    return begin


Job = Callable[..., Callable[..., VerifyTask]]


def evidence(client: MlflowClient, task: VerifyTask) -> str:
    checks = json.loads(Path(client.download_artifacts(task.run.id, "gate/report.json")).read_text())["checks"]
    return next(check["evidence"] for check in checks if check["name"] == "quality")


def refused(verdict: VerifyReport, words: str) -> None:
    assert (verdict.verdict, verdict.failed, verdict.model_version) == ("Failed", ["quality"], None)
    assert words in verdict.message
    assert "Remedy: " in verdict.message


def test_and_against_nothing_before_the_first(client: MlflowClient, given: Given, first: Path) -> None:
    task = given(first, "lonely", export=CHAMPION, gate=NOT_WORSE)

    assert verify(task, client).model_version == "1"
    assert "spec.gate[0] is not asked: no version has that alias" in evidence(client, task)


def test_a_better_one_takes_its_place_and_a_worse_one_does_not(client: MlflowClient, job: Job, better: Path, worse: Path) -> None:
    task = job("ranked")
    one, other = task(worse, "worse", gate=NOT_WORSE), task(better, "better", gate=BETTER)

    refused(verify(one, client), "of models:/team.ranked/1 (champion) is -")
    verdict = verify(other, client)

    assert (verdict.verdict, verdict.model_version) == ("Passed", "2")
    assert "of models:/team.ranked/1 (champion) is 0." in evidence(client, other)
    assert client.get_model_version_by_alias("team.ranked", "champion").version == 2
    assert verify(other, client) == verdict, "cut off at its end, it is not held against itself"
    assert "spec.gate[0] is not asked: this candidate met it when it became models:/team.ranked/2" in evidence(client, other)


def test_the_version_that_was_found_first_counts_when_the_alias_moves(
    client: MlflowClient, job: Job, better: Path, worse: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    task = job("moving")
    inspect = gate.inspect

    def moved(*given: Any) -> gate.Inspection:
        client.delete_registered_model_alias("team.moving", "champion")
        return inspect(*given)

    monkeypatch.setattr(gate, "inspect", moved)
    both = [*NOT_WORSE, {"metric": "loss", "baseline": "champion", "max": 0}]

    refused(verify(task(worse, "next", gate=both), client), "of models:/team.moving/1 (champion)")


def _quarantined(client: MlflowClient, uri: str, folder: Path) -> None:
    client.set_model_version_tag(uri.split("/")[1], "1", Tag.QUARANTINED.value, "a reason of somebody's")


def _byte_changed(client: MlflowClient, uri: str, folder: Path) -> None:
    path = folder / "artifacts" / "eval.pt2"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _made_by_hand(client: MlflowClient, uri: str, folder: Path) -> None:
    (folder / "gate" / "verdict.json").unlink()


@pytest.mark.parametrize(("change", "words"), [
    (_quarantined, "is nothing to be held against: quarantine: it was quarantined: a reason of somebody's"),
    (_byte_changed, "is nothing to be held against: files: 'artifacts/eval.pt2' was changed"),
    (_made_by_hand, "is nothing to be held against: statement: there is no gate/verdict.json"),
])
def test_a_version_that_is_not_what_the_gate_passed_is_no_measure(
    change: Callable[[MlflowClient, str, Path], None], words: str, client: MlflowClient, job: Job, better: Path, files_of: FilesOf,
) -> None:
    model = change.__name__.strip("_").replace("_", "-")
    task, uri = job(model), f"models:/team.{model}/1"
    change(client, uri, files_of(uri))

    refused(verify(task(better, "next", gate=NOT_WORSE), client), f"spec.gate[0].baseline: {uri} {words}")


def test_nor_is_an_unsigned_one_where_there_is_a_key(client: MlflowClient, job: Job, better: Path, keys: Any) -> None:
    pair = signing.Keys(keys.private, signing.public_keys(keys.public))
    task = job("unsigned-champion")

    refused(verify(task(better, "next", gate=NOT_WORSE), client, pair), "signature: there is no model.sig among its files")


def test_nor_one_of_other_classes(client: MlflowClient, job: Job, tmp_path: Path) -> None:
    task = job("other-outputs")
    more = zoo.candidate(tmp_path / "candidate", network(3, zoo.CLASSES + 2), task=Task(outputs=zoo.CLASSES + 2)).folder

    refused(verify(task(more, "next", gate=NOT_WORSE), client), "40 rows were answered with [40, 3], not [40, 5]")
    assert verify(task(more, "again", gate=[]), client).verdict == "Passed"


def test_and_one_that_is_deleted_in_between_makes_the_verifier_try_again(
    client: MlflowClient, job: Job, better: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    task = job("gone")
    monkeypatch.setattr(baseline, "_pointed", lambda *_: {"champion": "7"})

    with pytest.raises(Exception, match=r"models:/team\.gone/7 was deleted while") as end:
        verify(task(better, "next", gate=NOT_WORSE), client)
    assert getattr(end.value, "reason", "") == "BaselineGone"
