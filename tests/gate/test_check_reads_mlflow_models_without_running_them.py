"""Folders as MLflow writes them, and versions of a registry behind a URI, by MLflow's own functions."""

import warnings
from collections.abc import Callable
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch
from dropout_testing import shop
from mlflow import MlflowClient

from dropout_api.names import ExitCode
from dropout_api.verdict import Outcome, Verdict
from dropout_trainer.check import targets
from dropout_trainer.check.arguments import Asked
from dropout_trainer.errors import StageFailure
from dropout_trainer.gate.verdict import GateReport

Judge = Callable[[object], GateReport]
pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's store and exporter warn about themselves
MARK = "touched"


class Touch:
    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (Path(MARK),)


@pytest.fixture
def judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Judge:
    monkeypatch.chdir(tmp_path)
    return lambda target: targets.judge(str(target), Asked([str(target)]))


def save(folder: Path, serialization: str = "pt2") -> Path:
    """What MLflow makes of a model in training mode."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        example = np.ones((3, 4), dtype=np.float32) if serialization == "pt2" else None
        mlflow.pytorch.save_model(shop.Ranker().train(), str(folder), input_example=example, serialization_format=serialization,
                                  pip_requirements=["torch"])
    return folder


def test_the_default_form_whose_mode_was_baked_in(judge: Judge, tmp_path: Path) -> None:
    report = judge(save(tmp_path / "model"))

    assert report.verdict is Verdict.FAILED
    assert report.failed[0].where is not None
    assert report.failed[0].where.layer == "drop"


def test_a_pickled_one_is_undecided_and_not_loaded(judge: Judge, tmp_path: Path) -> None:
    folder = save(tmp_path / "model", "pickle")
    torch.save(Touch(), folder / "data/model.pth")

    report = judge(folder)

    assert report.verdict is Verdict.COULD_NOT_RUN
    assert "--trust" in (report.checks[0].remedy or "")
    assert not Path(MARK).exists()


def test_code_of_its_own_around_a_program_is_named(judge: Judge, tmp_path: Path) -> None:
    folder = save(tmp_path / "model")
    about = (folder / "MLmodel").read_text()
    (folder / "MLmodel").write_text(about.replace("  python_function:\n", "  python_function:\n    model_code_path: serving.py\n"))

    last = judge(folder).checks[-1]

    assert (last.name, last.outcome) == ("serving_code", Outcome.NOT_APPLICABLE)
    assert "data/model.pt2 was judged" in last.evidence
    assert "serving.py" in last.evidence


def test_which_of_several_is_for_whoever_asks_to_say(judge: Judge, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "MLmodel").write_text("flavors: {python_function: {loader_module: x}}")
    for name in ("a.onnx", "b.onnx"):
        (folder / name).write_bytes(b"")

    assert "several: a.onnx, b.onnx" in judge(folder).message


@pytest.mark.parametrize("text", ["flavors: 3", "[", "a: &a [*a]", "flavors: {}"])
def test_a_description_that_is_none_is_undecided(judge: Judge, tmp_path: Path, text: str) -> None:
    (tmp_path / "MLmodel").write_text(text)

    assert judge(tmp_path).verdict is Verdict.COULD_NOT_RUN


def test_no_link_leads_out_of_the_folder(judge: Judge, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "other.pt2").write_bytes(b"x")
    (folder / "linked.pt2").symlink_to(tmp_path / "other.pt2")
    (folder / "MLmodel").write_text("flavors: {python_function: {artifacts: {program: {path: ../other.pt2}}}}")

    assert "holds no torch or ONNX model" in judge(folder).message


def test_a_version_and_a_runs_files_by_uri(judge: Judge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    mlflow.set_tracking_uri(store)
    mlflow.set_registry_uri(store)
    client = MlflowClient(store, store)
    run = client.create_run(client.create_experiment("shop", artifact_location=str(tmp_path / "artifacts")))
    client.log_artifacts(run.info.run_id, str(save(tmp_path / "model")), "model")
    client.create_registered_model("ranker")
    client.create_model_version("ranker", f"{run.info.artifact_uri}/model", run.info.run_id)

    for uri in ("models:/ranker/1", f"runs:/{run.info.run_id}/model"):
        assert judge(uri).verdict is Verdict.FAILED
    for uri in ("models:/ranker/2", "models:/dish/1", f"runs:/{'0' * 32}/model", f"runs:/{run.info.run_id}/soup"):
        with pytest.raises(StageFailure, match="is unknown to MLflow") as raised:
            judge(uri)
        assert raised.value.exit_code is ExitCode.DATA_MISSING
