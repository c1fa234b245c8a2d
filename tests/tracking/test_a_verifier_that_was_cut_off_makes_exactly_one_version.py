"""Kill points are enumerated: every call that writes to MLflow, before it and after it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from dropout_api.names import Tag
from dropout_api.task import VerifyTask
from dropout_trainer.errors import StageFailure
from dropout_trainer.gate import gate
from dropout_trainer.verify import register, run, signing, target
from dropout_trainer.verify.run import verify

Given = Callable[..., VerifyTask]
WRITES = (
    "create_run", "log_artifacts", "log_metric", "set_terminated", "create_registered_model", "create_logged_model", "log_model_artifacts",
    "set_logged_model_tags", "finalize_logged_model", "create_model_version", "set_registered_model_alias", "set_tag",
)


class CutOff(BaseException):
    """The pod is killed; nothing in the program may catch it."""


class Mortal:
    """A client that dies at its first call of `write`, before or after the call took effect."""

    def __init__(self, client: MlflowClient, write: str, after: bool) -> None:
        self._client, self._write, self._after = client, write, after
        self.died = False

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        if name != self._write or self.died:
            return method

        def dying(*args: Any, **kwargs: Any) -> Any:
            self.died = True
            if self._after:
                method(*args, **kwargs)
            raise CutOff

        return dying


@pytest.fixture(scope="module")
def inspection(sound: Path) -> gate.Inspection:
    return gate.inspect(sound)


@pytest.fixture(autouse=True)
def _gate_is_not_run_each_time(inspection: gate.Inspection, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is pure, and this file is about what comes after it."""
    monkeypatch.setattr(gate, "inspect", lambda *_: inspection)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("write", WRITES)
def test_at(write: str, after: bool, client: MlflowClient, given: Given, sound: Path, keys: Any, tmp_path: Path) -> None:
    pair = signing.Keys(keys.private, signing.public_keys(keys.public))
    name = f"cut-{write.replace('_', '-')}-{'after' if after else 'before'}"
    task = given(sound, name, export={"alias": "champion"})
    with pytest.raises(CutOff):
        verify(task, Mortal(client, write, after), pair)

    verdict = verify(task, client, pair)

    versions = client.search_model_versions(f"name = 'team.{name}'")
    assert [str(version.version) for version in versions] == [verdict.model_version] == ["1"]
    assert versions[0].tags[Tag.VERDICT] == "Passed"
    assert client.get_model_version_by_alias(f"team.{name}", "champion").version == 1
    experiment = client.get_experiment_by_name("team:verified")
    assert experiment is not None
    ours = f"tags.`{Tag.UID}` = 'uid-{name}'"
    assert len(client.search_runs([experiment.experiment_id], ours)) == 1
    assert len(client.search_logged_models([experiment.experiment_id], ours)) == 1
    checks, _ = target.check(client, target.Version.of(versions[0]), tmp_path, pair.public)
    assert {check.name: check.outcome.value for check in checks} == dict.fromkeys(("statement", "files", "tags", "signature"), "Passed")


def test_and_a_later_release_with_other_serving_code_still_finds_it(
    client: MlflowClient, given: Given, sound: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    task = given(sound, "upgraded")
    before = verify(task, client)
    monkeypatch.setattr(register, "code_tag", lambda: {Tag.CODE_DIGEST: "0" * 64})

    assert verify(task, client) == before


def test_and_so_does_a_later_gate(client: MlflowClient, given: Given, sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = given(sound, "regated")
    before = verify(task, client)
    monkeypatch.setattr(run, "GATE_VERSION", "99")

    assert verify(task, client) == before


def test_and_a_later_gate_that_finds_only_a_copy_tags_its_version_as_the_copy_is(
    client: MlflowClient, given: Given, sound: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:
    task = given(sound, "half-regated")
    with pytest.raises(CutOff):
        verify(task, Mortal(client, "create_model_version", after=False))
    monkeypatch.setattr(run, "GATE_VERSION", "99")

    verify(task, client)

    version = client.get_model_version("team.half-regated", "1")
    assert version.tags[Tag.GATE_VERSION] != "99"
    checks, _ = target.check(client, target.Version.of(version), tmp_path, ())
    assert not [check for check in checks if check.outcome == "Failed"]


class Meddling:
    """A client whose uploads leave a file of an earlier release among the copy's."""

    def __init__(self, client: MlflowClient) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def log_model_artifacts(self, model_id: str, folder: str) -> None:
        (Path(folder) / "old.txt").write_text("x")
        self._client.log_model_artifacts(model_id, folder)


def test_and_a_copy_that_cannot_be_mended_is_given_up(client: MlflowClient, given: Given, sound: Path) -> None:
    task = given(sound, "mixed-up")
    with pytest.raises(StageFailure, match=r"'old.txt' was added"):
        verify(task, Meddling(client))
    assert not client.search_model_versions("name = 'team.mixed-up'")

    assert verify(task, client).model_version == "1"

    experiment = client.get_experiment_by_name("team:verified")
    assert experiment is not None
    copies = client.search_logged_models([experiment.experiment_id], f"tags.`{Tag.UID}` = 'uid-mixed-up'")
    assert sorted(str(copy.status) for copy in copies) == ["FAILED", "READY"]


def test_and_one_whose_version_was_changed_since_does_not_move_the_alias(
    client: MlflowClient, given: Given, sound: Path, files_of: Callable[[str], Path],
) -> None:
    task = given(sound, "changed-since", export={"alias": "champion"})
    with pytest.raises(CutOff):
        verify(task, Mortal(client, "set_registered_model_alias", after=False))
    (files_of("models:/team.changed-since/1") / "extra.py").write_text("x")

    with pytest.raises(StageFailure, match=r"'extra.py' was added") as caught:
        verify(task, client)

    assert caught.value.reason == "CopyDiffers"
    assert not client.get_registered_model("team.changed-since").aliases


def test_and_of_two_that_ran_at_the_same_moment_the_lower_version_wins(client: MlflowClient, given: Given, sound: Path) -> None:
    task = given(sound, "race")
    verify(task, client)
    first = client.get_model_version("team.race", "1")
    order = register.Order(model="team.race", experiment="", title="race", run_id=task.run.id, tags=first.tags, description="")

    class Blind:
        """Sees no version until it has made its own."""

        def __init__(self) -> None:
            self.created = False

        def search_model_versions(self, query: str) -> list[Any]:
            return list(client.search_model_versions(query)) if self.created else []

        def create_model_version(self, *args: Any, **kwargs: Any) -> Any:
            self.created = True
            return client.create_model_version(*args, **kwargs)

        def delete_model_version(self, name: str, version: str) -> None:
            client.delete_model_version(name, version)

    winner = register.ensure_version(Blind(), client.get_logged_model(first.source.removeprefix("models:/")), order)

    assert winner.version == 1
    assert [version.version for version in client.search_model_versions("name = 'team.race'")] == [1]
