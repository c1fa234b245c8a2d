import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dropout_testing import zoo
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED

from dropout_api.candidate import CONFIG
from dropout_api.names import Env, ExitCode
from dropout_api.report import StageError, VerifyReport, parse
from dropout_api.task import VerifyTask
from dropout_trainer.errors import StageFailure
from dropout_trainer.gate import gate
from dropout_trainer.verify import patience, register, run

Given = Callable[..., VerifyTask]
Broken = Callable[..., Path]


@pytest.fixture
def message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the termination message goes."""
    path = tmp_path / "termination-log"
    monkeypatch.setenv(Env.TERMINATION_LOG, str(path))
    for name, value in patience.SETTINGS.items():
        monkeypatch.setenv(name, value)
    return path


def test_when_there_is_no_task(message: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(Env.TASK, raising=False)

    assert run.main() == ExitCode.USAGE

    error = parse(StageError, message.read_text())
    assert error is not None
    assert (error.stage, error.reason) == ("verify", "TaskMissing")


def test_when_mlflow_is_away(message: Path, given: Given, sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(Env.TASK, given(sound, "away").to_json())
    monkeypatch.setattr(run, "_client", lambda: Refusing(ConnectionError("refused"), "list_artifacts"))
    monkeypatch.setattr(patience.time, "monotonic", iter(range(0, 10**6, 100)).__next__)

    assert run.main() == ExitCode.TRACKING_UNAVAILABLE

    error = parse(StageError, message.read_text())
    assert error is not None
    assert error.reason == "TrackingUnavailable"


def test_when_the_registry_refuses(given: Given, sound: Path, client: MlflowClient) -> None:
    denied = Refusing(MlflowException("no right", PERMISSION_DENIED), "create_registered_model", client)

    with pytest.raises(StageFailure, match="no right") as caught:
        run.verify(given(sound, "denied"), denied)

    assert caught.value.reason == "RegistryRefused"


def test_when_the_training_image_has_another_torch(given: Given, client: MlflowClient, broken: Broken) -> None:
    folder = broken(zoo.SOUND["mlp"].build())
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | {"versions": {"torch": "2.9.1"}}))
    zoo.seal(folder)

    with pytest.raises(StageFailure, match=r"torch 2\.9\.1") as caught:
        run.verify(given(folder, "old-torch"), client)

    assert caught.value.reason == "TorchMismatch"


def test_when_it_runs_out_of_memory(message: Path, given: Given, sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: Any) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setenv(Env.TASK, given(sound, "memory").to_json())
    monkeypatch.setattr(gate, "BEHAVIOUR", {"repeat": exhausted})

    assert run.main() != ExitCode.OK

    error = parse(StageError, message.read_text())
    assert error is not None
    assert error.reason == "OutOfMemory"


def test_and_what_comes_back_must_be_what_was_checked(
    given: Given, sound: Path, client: MlflowClient, monkeypatch: pytest.MonkeyPatch,
) -> None:
    task = given(sound, "swapped", export={"alias": "champion"})
    monkeypatch.setattr(register, "sha256", lambda path: "0" * 64)

    with pytest.raises(StageFailure, match="not what the gate has passed"):
        run.verify(task, client)

    assert not client.search_model_versions("name = 'team.swapped'")


def test_while_a_report_that_cannot_be_attached_to_the_run_is_only_a_warning(
    message: Path, given: Given, sound: Path, client: MlflowClient, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:
    task = given(sound, "detached")
    monkeypatch.setenv(Env.TASK, task.to_json())
    monkeypatch.setattr(run, "_client", lambda: Refusing(MlflowException("no right", PERMISSION_DENIED), "set_tag", client))

    assert run.main() == ExitCode.OK

    verdict = parse(VerifyReport, message.read_text())
    assert verdict is not None
    assert verdict.verdict == "Passed"
    assert "could not be attached" in capsys.readouterr().err


class Refusing:
    """A client whose method `name` raises."""

    def __init__(self, error: Exception, name: str, client: MlflowClient | None = None) -> None:
        self._error, self._name, self._client = error, name, client

    def __getattr__(self, name: str) -> Any:
        if name != self._name:
            return getattr(self._client, name)

        def refuse(*_: Any, **__: Any) -> Any:
            raise self._error

        return refuse
