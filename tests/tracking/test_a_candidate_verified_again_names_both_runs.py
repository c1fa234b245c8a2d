"""`spec.from` in the verifier: the other run is read, the job's own is reported to, and what is registered names both."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from dropout_testing import zoo
from mlflow import MlflowClient

from dropout_api.candidate import CONFIG
from dropout_api.names import Tag
from dropout_api.spec import JobSpec
from dropout_api.task import RunRef, VerifyTask
from dropout_trainer.verify.run import verify

Given = Callable[..., VerifyTask]
IMPOSSIBLE = [{"metric": "accuracy", "min": 1.5}]
SEED = 7


@pytest.fixture
def seeded(sound: Path, tmp_path: Path) -> Path:
    """A sound candidate whose training had another seed than the specs of these tests."""
    folder = shutil.copytree(sound, tmp_path / "seeded")
    config = json.loads((folder / CONFIG).read_text()) | {"seed": SEED}
    (folder / CONFIG).write_text(json.dumps(config))
    zoo.seal(folder)
    return folder


def again(client: MlflowClient, before: VerifyTask, name: str) -> VerifyTask:
    """The task of a second job, which verifies what the first left."""
    run = client.create_run(before.run.experiment_id)
    spec = JobSpec.model_validate({"from": {"run": before.run.id}, "export": {"model": name}})
    job = before.job.model_copy(update={"name": f"{name}-again", "uid": f"uid-{name}-again"})
    return VerifyTask(job=job, run=RunRef(id=run.info.run_id, experiment_id=before.run.experiment_id), spec=spec, source=before.run)


def test_what_an_impossible_bar_kept_out_is_registered_under_a_possible_one(client: MlflowClient, given: Given, seeded: Path) -> None:
    first = given(seeded, "barred", gate=IMPOSSIBLE)
    assert verify(first, client).verdict == "Failed"
    second = again(client, first, "barred")

    verdict = verify(second, client)

    assert (verdict.verdict, verdict.model_uri) == ("Passed", "models:/team.barred/1")
    version = client.get_model_version("team.barred", "1")
    assert version.run_id == first.run.id
    assert (version.tags[Tag.FROM_RUN], version.tags[Tag.RUN_ID]) == (first.run.id, second.run.id)
    assert (version.tags[Tag.NAME], version.tags[Tag.SEED], version.tags[Tag.IMAGE]) == ("barred-again", str(SEED), "unknown")
    assert first.run.id in (version.description or "")


def test_each_run_keeps_its_own_verdict(client: MlflowClient, given: Given, seeded: Path) -> None:
    first = given(seeded, "kept", gate=IMPOSSIBLE)
    verify(first, client)
    second = again(client, first, "kept")
    verify(second, client)

    verdicts = [client.get_run(task.run.id).data.tags[Tag.VERDICT] for task in (first, second)]
    assert verdicts == ["Failed", "Passed"]
    assert {info.path for info in client.list_artifacts(second.run.id, "gate")} == {"gate/report.json", "gate/report.html"}


def test_repeated_it_makes_one_version(client: MlflowClient, given: Given, sound: Path) -> None:
    task = again(client, given(sound, "repeated"), "repeated")

    assert verify(task, client) == verify(task, client)
    assert len(client.search_model_versions("name = 'team.repeated'")) == 1


def test_a_run_that_left_no_candidate_is_named(client: MlflowClient, given: Given) -> None:
    first = given(None, "empty")

    verdict = verify(again(client, first, "empty"), client)

    assert verdict.verdict == "Failed"
    assert first.run.id in verdict.message
