"""A candidate with all that a job can ask for goes in; what comes out is a version that serves from torch and from onnxruntime."""

from collections.abc import Callable
from pathlib import Path

import mlflow
import numpy as np
import onnxruntime as ort
import pytest
import torch
from dropout_testing import zoo
from mlflow import MlflowClient

from dropout_api.candidate import ONNX
from dropout_api.names import Tag
from dropout_api.task import VerifyTask
from dropout_api.verdict import Outcome
from dropout_trainer.train.mc_export import with_dropout_on
from dropout_trainer.verify import target
from dropout_trainer.verify.run import verify

Given = Callable[..., VerifyTask]
ASKED = {"mcPasses": 5, "formats": ["PT2", "ONNX"]}
ROWS = np.random.default_rng(0).normal(size=(5, zoo.FEATURES)).astype("float32")


@pytest.fixture(scope="session")
def with_both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    network = zoo.SOUND["mlp"].build()
    folder = zoo.candidate(tmp_path_factory.mktemp("both") / "candidate", network).folder
    zoo.add_mc(folder, with_dropout_on(network))
    zoo.add_onnx(folder, network.eval())
    return folder


def test_and_they_agree(client: MlflowClient, given: Given, with_both: Path, tmp_path: Path, files_of: Callable[[str], Path]) -> None:
    verdict = verify(given(with_both, "formats", export=ASKED), client)

    uri = verdict.model_uri
    assert uri is not None, verdict.message
    assert client.get_model_version("team.formats", "1").tags[Tag.FORMAT] == "PT2,ONNX"
    loaded = mlflow.pyfunc.load_model(uri)
    session = ort.InferenceSession(str(files_of(uri) / "artifacts" / ONNX), providers=["CPUExecutionProvider"])
    answer = session.run(None, {session.get_inputs()[0].name: ROWS})[0]
    assert np.allclose(loaded.predict(ROWS), answer, atol=1e-5)
    assert not np.allclose(loaded.predict(ROWS, params={"mc_passes": 1}), answer, atol=1e-3)
    found = {check.name: check.outcome for check in target.check(client, target.find(client, uri), tmp_path, ())[0]}
    assert found.items() >= {"statement": Outcome.PASSED, "files": Outcome.PASSED, "tags": Outcome.PASSED}.items()


def test_or_there_is_no_version(client: MlflowClient, given: Given, sound: Path) -> None:
    verdict = verify(given(sound, "no-onnx", export={"formats": ["PT2", "ONNX"]}), client)

    assert (verdict.verdict, verdict.failed) == ("Failed", ["candidate"])
    assert "'model.onnx' is missing from the candidate, but spec.export.formats asks for it" in verdict.message


def test_and_a_program_alone_is_told_as_one(client: MlflowClient, given: Given, sound: Path) -> None:
    assert verify(given(sound, "pt2-alone"), client).verdict == "Passed"
    assert client.get_model_version("team.pt2-alone", "1").tags[Tag.FORMAT] == "PT2"
