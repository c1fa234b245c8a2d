"""A small real training is recorded in MLflow's own store, then trained again from that record alone."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow import MlflowClient

from dropout_api.spec import TrainingJobSpec
from dropout_api.task import JobRef, RunRef, TrainTask
from dropout_trainer.cli import main
from dropout_trainer.train import preparing
from dropout_trainer.train.run import train
from dropout_trainer.train.telemetry import Telemetry
from dropout_trainer.train.tracking import Tracking

EPOCHS = 2
Record = Callable[..., str]
FACTORY = """
import csv, torch
from dropout_trainer.data import Data, Split

def rows():
    with open("rows.csv") as file:
        table = torch.tensor([[float(cell) for cell in row] for row in csv.reader(file)])
    splits = [Split(part[:, :-1], part[:, -1].long()) for part in (table[:60], table[60:80], table[80:])]
    return Data(*splits, class_names=("a", "b", "c"))
"""


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(strict)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its user's, where the data and the code that reads them lie."""
    source = torch.Generator().manual_seed(0)
    inputs, targets = torch.randn(100, 4, generator=source), torch.randint(3, (100,), generator=source)
    lines = [",".join(map(str, [*row.tolist(), int(target)])) for row, target in zip(inputs, targets, strict=True)]
    (tmp_path / "rows.csv").write_text("\n".join(lines))
    (tmp_path / "table_of_rows.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.fixture
def record(client: MlflowClient, place: Path) -> Record:
    """Trains as a pod does, into a new run. Returns its id."""

    def make(**changes: Any) -> str:
        experiment = client.get_experiment_by_name("team.digits")
        assert experiment is not None
        run = client.create_run(experiment.experiment_id).info.run_id
        spec = TrainingJobSpec.model_validate({
            "model": {"factory": "mlp", "args": {"hidden": [8]}}, "data": {"factory": "table_of_rows:rows"},
            "training": {"epochs": EPOCHS, "batch_size": 16}, "resources_per_node": {"requests": {"cpu": 1}}, **changes})
        task = TrainTask(job=JobRef(cluster="c", namespace="team", name="digits", uid="u"), attempt=1, spec=spec,
                         run=RunRef(id=run, experiment_id=experiment.experiment_id))
        train(task, Tracking(run), Telemetry(1, EPOCHS, lambda: True))
        if "spec.json" not in {info.path for info in client.list_artifacts(run)}:
            client.log_text(run, spec.to_json(), "spec.json")
        client.set_terminated(run)
        return str(run)

    return make


def reproduced(run: str, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, dict[str, Any]]:
    capsys.readouterr()
    code = main(["reproduce", run, "--json", *options])
    return code, json.loads(capsys.readouterr().out)


def test_the_same_is_equal_and_mlflow_is_left_as_it_was(record: Record, client: MlflowClient, capsys: pytest.CaptureFixture[str]) -> None:
    run = record()
    before = client.get_run(run).to_dictionary()
    code, found = reproduced(run, capsys)

    assert (code, found["outcome"], found["differences"]) == (0, "equal", [])
    assert (found["epochs"], found["files"]) == (EPOCHS, ["weights.safetensors", "eval.pt2"])
    assert client.get_run(run).to_dictionary() == before
    assert main(["reproduce", run]) == 0
    assert capsys.readouterr().out == f"run {run}: equal ({EPOCHS} epochs, weights.safetensors, eval.pt2)\n"


def test_a_changed_seed_is_found(record: Record, client: MlflowClient, capsys: pytest.CaptureFixture[str]) -> None:
    run = record(seed=1)
    client.log_text(run, client_text(client, run).replace('"seed":1', '"seed":2'), "spec.json")
    code, found = reproduced(run, capsys)

    assert (code, found["outcome"], found["differences"][0]) == (1, "differs", {
        "kind": "seed", "what": "seed", "recorded": "1", "here": "2"})
    assert {"seed", "curve", "weights"} <= {item["kind"] for item in found["differences"]}


def client_text(client: MlflowClient, run: str) -> str:
    return Path(client.download_artifacts(run, "spec.json")).read_text()


def test_a_changed_row_of_data_is_found(record: Record, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = record()
    first, *others = (place / "rows.csv").read_text().splitlines()
    (place / "rows.csv").write_text("\n".join([first.replace(first.split(",")[0], "0.5"), *others]))
    code, found = reproduced(run, capsys)

    assert (code, found["differences"][0]["what"]) == (1, "data.sha256")


def test_a_changed_version_is_named_and_excuses_another_curve(
    record: Record, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = preparing.versions()
    with monkeypatch.context() as then:
        then.setattr(preparing, "versions", lambda: now | {"torch": "2.12.0"})
        run = record()
    code, found = reproduced(run, capsys)

    assert (code, found["outcome"]) == (0, "equal")
    assert [(item["kind"], item["what"], item["recorded"]) for item in found["differences"]] == [("version", "version.torch", "2.12.0")]


def test_the_first_epochs_are_compared_alone(record: Record, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = reproduced(record(), capsys, "--epochs", "1")

    assert (code, found["epochs"], found["files"]) == (0, 1, [])


@pytest.mark.parametrize(("status", "code", "says"), [("RUNNING", 3, "has ended"), ("FINISHED", 3, "has no spec.json")])
def test_a_run_that_says_too_little_decides_nothing(
    client: MlflowClient, status: str, code: int, says: str, capsys: pytest.CaptureFixture[str],
) -> None:
    run = client.create_run(client.get_experiment_by_name("team.digits").experiment_id).info.run_id
    if status == "FINISHED":
        client.set_terminated(run)

    assert main(["reproduce", run]) == code
    assert says in capsys.readouterr().err


def test_no_such_run_and_no_mlflow_have_exit_codes_of_their_own(
    client: MlflowClient, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert main(["reproduce", "0" * 32]) == 66
    assert "there is no run" in capsys.readouterr().err
    monkeypatch.setattr("dropout_trainer.reproduce.recorded.PATIENCE_SECONDS", 0.1)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setattr("mlflow.tracking._tracking_service.utils._tracking_uri", None)

    assert main(["reproduce", "0" * 32]) == 69
