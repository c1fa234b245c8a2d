"""What goes in is a candidate with an MC-dropout program; what comes out is what a loaded version answers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import torch
from dropout_testing import zoo
from mlflow import MlflowClient

from dropout_api.candidate import MC
from dropout_api.names import Tag
from dropout_api.task import VerifyTask
from dropout_api.verdict import Outcome
from dropout_trainer.gate.candidate import sha256
from dropout_trainer.train.mc_export import with_dropout_on
from dropout_trainer.verify import target
from dropout_trainer.verify.run import verify

Given = Callable[..., VerifyTask]
ROWS = np.random.default_rng(0).normal(size=(5, zoo.FEATURES)).astype("float32")
ASKED = {"mcPasses": 20}


@pytest.fixture(scope="session")
def with_mc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    network = zoo.SOUND["mlp"].build()
    folder = zoo.candidate(tmp_path_factory.mktemp("mc") / "candidate", network).folder
    zoo.add_mc(folder, with_dropout_on(network))
    return folder


@pytest.fixture
def model(client: MlflowClient, given: Given, with_mc: Path, request: pytest.FixtureRequest) -> Any:
    verdict = verify(given(with_mc, request.function.__name__[:40], export=ASKED), client)
    assert verdict.model_uri is not None, verdict.message
    return mlflow.pyfunc.load_model(verdict.model_uri)


def test_and_by_default_as_in_eval_mode(client: MlflowClient, given: Given, with_mc: Path, model: Any) -> None:
    plain = model.predict(ROWS)

    assert plain.shape == (5, zoo.CLASSES)
    assert np.array_equal(plain, model.predict(ROWS))
    assert np.array_equal(plain, model.predict(ROWS, params={"seed": 7}))
    assert not np.array_equal(plain, model.predict(ROWS, params={"mc_passes": 1}))
    assert np.array_equal(plain, model.predict(ROWS)), "a call with passes leaves the next one alone"


def test_with_passes_that_the_seed_repeats(model: Any) -> None:
    def answer(**params: Any) -> Any:
        return model.predict(ROWS, params=params)

    assert np.array_equal(answer(mc_passes=20, seed=1), answer(mc_passes=20, seed=1))
    assert not np.array_equal(answer(mc_passes=20, seed=1), answer(mc_passes=20, seed=2))
    mean, spread = answer(mc_passes=20, seed=1), answer(mc_passes=20, seed=1, mc_output="std")
    assert mean.shape == spread.shape == (5, zoo.CLASSES)
    assert spread.min() > 0
    assert np.abs(mean - model.predict(ROWS)).max() < 3 * spread.max()


def test_and_leaves_the_callers_random_stream_alone(model: Any) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    model.predict(ROWS, params={"mc_passes": 3, "seed": 9})

    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(("params", "words"), [
    ({"mc_passes": -3}, "mc_passes is -3; this version takes 0 to 20"),
    ({"mc_passes": 21}, "mc_passes is 21; this version takes 0 to 20"),
    ({"mc_passes": 2, "seed": -1}, "seed is -1"),
    ({"mc_passes": 2, "mc_output": "all"}, "mc_output is 'all'; it may be mean or std"),
    ({"mc_passes": 1, "mc_output": "std"}, "mc_output std needs mc_passes of 2 or more"),
    ({"mc_output": "std"}, "mc_output std needs mc_passes of 2 or more"),
], ids=["negative", "too many", "a seed below zero", "an unknown output", "the spread of one pass", "the spread of none"])
def test_or_says_what_is_wrong_with_the_request(params: dict[str, Any], words: str, model: Any) -> None:
    with pytest.raises(ValueError, match=words):
        model.predict(ROWS, params=params)


def test_or_says_that_it_has_none(client: MlflowClient, given: Given, sound: Path) -> None:
    verdict = verify(given(sound, "no-mc"), client)
    loaded = mlflow.pyfunc.load_model(verdict.model_uri)

    with pytest.raises(ValueError, match=r"this version has no MC-dropout program; train with spec\.export\.mcPasses"):
        loaded.predict(ROWS, params={"mc_passes": 2})
    assert Tag.MC_DIGEST not in client.get_model_version("team.no-mc", "1").tags


def test_and_is_bound_to_that_program_too(
    client: MlflowClient, given: Given, with_mc: Path, files_of: Callable[[str], Path], tmp_path: Path,
) -> None:
    uri = verify(given(with_mc, "mc-bound", export=ASKED), client).model_uri
    assert uri is not None
    version = target.find(client, uri)
    assert version.tags[Tag.MC_DIGEST] == sha256(with_mc / MC)

    def outcomes(name: str) -> dict[str, Outcome]:
        (tmp_path / name).mkdir()
        return {check.name: check.outcome for check in target.check(client, target.find(client, uri), tmp_path / name, ())[0]}

    assert outcomes("as-made").items() >= {"statement": Outcome.PASSED, "files": Outcome.PASSED, "tags": Outcome.PASSED}.items()
    client.set_model_version_tag("team.mc-bound", "1", Tag.MC_DIGEST.value, "0" * 64)
    assert outcomes("other-tag")["tags"] is Outcome.FAILED
    program = files_of(uri) / "artifacts" / MC
    program.write_bytes(program.read_bytes() + b"x")
    assert outcomes("other-program")["files"] is Outcome.FAILED
    with pytest.raises(ValueError, match=r"the program mc has SHA-256 .*: not loaded"):
        mlflow.pyfunc.load_model(uri).predict(ROWS, params={"mc_passes": 2})


@pytest.mark.parametrize(("asked", "has", "words"), [
    (ASKED, False, "'mc.pt2' is missing from the candidate, but spec.export.mcPasses asks for it"),
    ({}, True, "'mc.pt2' is part of the candidate, but spec.export.mcPasses does not ask for it"),
], ids=["missing", "unasked"])
def test_or_is_never_made_when_asked_and_given_differ(
    asked: dict[str, Any], has: bool, words: str, client: MlflowClient, given: Given, sound: Path, with_mc: Path,
) -> None:
    verdict = verify(given(with_mc if has else sound, f"differs-{has}", export=asked), client)

    assert (verdict.verdict, verdict.failed) == ("Failed", ["candidate"])
    assert words in verdict.message
