"""Binding and audit over HTTP, through a real server's proxied artifacts and with the rights of the chart's verifier."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import torch
from dropout_testing import zoo
from dropout_testing.mlflow_server import MlflowServer, mlflow_server
from mlflow import MlflowClient

from dropout_api.binding import SIGNATURE
from dropout_api.candidate import CANDIDATE_PATH
from dropout_api.names import ExitCode, Tag
from dropout_api.spec import JobSpec
from dropout_api.task import JobRef, RunRef, VerifyTask
from dropout_api.verdict import Verdict
from dropout_trainer.verify import audit, signing, target
from dropout_trainer.verify.run import verify

pytestmark = [pytest.mark.xdist_group("mlflow-server"), pytest.mark.timeout(600)]
As = Callable[[str], MlflowClient]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[MlflowServer, Path]]:
    folder = tmp_path_factory.mktemp("server")
    with mlflow_server(folder) as running:
        yield running, folder / "artifacts"


@pytest.fixture
def acting_as(server: tuple[MlflowServer, Path], monkeypatch: pytest.MonkeyPatch) -> As:
    """MLflow's client as that user; the environment is the user's from then on."""
    def become(user: str) -> MlflowClient:
        for name, value in server[0].client_environment(user).items():
            monkeypatch.setenv(name, value)
        mlflow.set_tracking_uri(server[0].url)
        mlflow.set_registry_uri(server[0].url)
        return MlflowClient(server[0].url, server[0].url)

    return become


def candidate_of(client: MlflowClient, name: str, folder: Path, **spec: Any) -> VerifyTask:
    known = client.get_experiment_by_name(f"team.{name}")
    experiment = known.experiment_id if known else client.create_experiment(f"team.{name}")
    run = client.create_run(experiment)
    client.log_artifacts(run.info.run_id, str(folder), CANDIDATE_PATH)
    return VerifyTask(
        job=JobRef(cluster="c", namespace="team", name=name, uid=f"uid-{run.info.run_id}"),
        run=RunRef(id=run.info.run_id, experiment_id=experiment),
        spec=JobSpec.model_validate({"model": {"factory": "mlp"}, "data": {"factory": "sklearn"}, "export": {"alias": "champion"}, **spec}))


def test_and_a_changed_byte_costs_the_alias(
    server: tuple[MlflowServer, Path], acting_as: As, sound: Path, keys: Any, capsys: pytest.CaptureFixture[str],
) -> None:
    task = candidate_of(acting_as("admin"), "http", sound)
    verifier = acting_as("verifier")
    pair = signing.Keys(keys.private, signing.public_keys(keys.public))
    wish = audit.Wish(("team.http",), str(keys.public), quarantine=True)

    assert verify(task, verifier, pair).model_uri == "models:/team.http/1"
    assert target.main("models:/team.http@champion", str(keys.public), as_json=False) == ExitCode.OK
    program = next(path.parent / "artifacts/eval.pt2" for path in server[1].rglob(SIGNATURE))
    program.write_bytes(program.read_bytes()[:-1] + b"\1")

    assert target.main("models:/team.http/1", None, as_json=False) == ExitCode.REJECTED
    assert "'artifacts/eval.pt2' was changed" in capsys.readouterr().out
    assert audit.main(wish) == ExitCode.REJECTED
    assert not verifier.get_registered_model("team.http").aliases
    assert "'artifacts/eval.pt2' was changed" in verifier.get_model_version("team.http", "1").tags[Tag.QUARANTINED]


def test_and_a_champion_is_a_baseline_once_there_is_one(acting_as: As, sound: Path) -> None:
    """Of a model that does not exist a server with passwords says "permission denied", not "no such model"."""
    bars = [{"metric": "accuracy", "baseline": "champion", "min": 0.001}]
    first, second = (candidate_of(acting_as("admin"), "baseline", sound, gate=bars) for _ in range(2))
    verifier = acting_as("verifier")

    assert verify(first, verifier).model_uri == "models:/team.baseline/1"
    answer = verify(second, verifier)
    assert (answer.verdict, answer.failed) == ("Failed", ["quality"])
    assert "models:/team.baseline/1 (champion) is 0," in answer.message


def test_and_one_made_by_hand_from_a_training_module_is_named_and_disarmed(acting_as: As) -> None:
    admin = acting_as("admin")
    network = torch.nn.Sequential(torch.nn.Linear(zoo.FEATURES, 4), torch.nn.Dropout(0.5)).train()
    mlflow.set_experiment("by-hand")
    with mlflow.start_run():
        mlflow.pytorch.log_model(network, name="m", input_example=np.zeros((4, zoo.FEATURES), "float32"), registered_model_name="by.hand",
                                 pip_requirements=["torch"])
    admin.set_registered_model_alias("by.hand", "champion", "1")
    wish = audit.Wish(("by.hand",), quarantine=True)

    refused = audit.audit(acting_as("verifier"), wish, ()).rows[0]  # it may only edit what others made
    found = audit.audit(acting_as("operator"), wish, ())

    assert (refused.verdict, refused.quarantined) == (Verdict.FAILED, False)
    assert "quarantine: TrackingRefused" in refused.reason
    assert (found.verdict, found.rows[0].quarantined, found.rows[0].aliases) == (Verdict.FAILED, True, ["champion"])
    assert "aten.dropout (train=True, p=0.5)" in found.rows[0].reason
    assert not admin.get_registered_model("by.hand").aliases


def test_and_the_signature_holds_for_the_library_s_own_program(acting_as: As, sound: Path, keys: Any, tmp_path: Path) -> None:
    task = candidate_of(acting_as("admin"), "interoperable", sound)
    uri = verify(task, acting_as("verifier"), signing.Keys(keys.private, signing.public_keys(keys.public))).model_uri
    folder = Path(mlflow.artifacts.download_artifacts(uri, dst_path=str(tmp_path)))
    library = [sys.executable, "-m", "model_signing"]
    command = [*library, "verify", "key", "--signature", folder / SIGNATURE, "--public_key", keys.public, folder]

    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    (folder / "MLmodel").write_text("x")
    assert subprocess.run(command, capture_output=True, check=False).returncode != 0


def test_and_a_server_that_does_not_answer_is_told_apart(
    monkeypatch: pytest.MonkeyPatch, acting_as: As, capsys: pytest.CaptureFixture[str],
) -> None:
    acting_as("verifier")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "wrong")

    assert target.main("models:/team.http/1", None, as_json=False) == ExitCode.TRACKING_UNAVAILABLE
    assert capsys.readouterr().err.startswith("TrackingRefused: MLflow refused models:/team.http/1")

    monkeypatch.setattr(target, "PATIENCE_SECONDS", 0.0)
    mlflow.set_registry_uri("http://127.0.0.1:9")
    mlflow.set_tracking_uri("http://127.0.0.1:9")
    assert audit.main(audit.Wish()) == ExitCode.TRACKING_UNAVAILABLE
    assert capsys.readouterr().err.startswith("TrackingUnavailable: MLflow did not answer")
