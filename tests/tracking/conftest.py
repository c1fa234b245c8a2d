
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from dropout_testing import zoo
from mlflow import MlflowClient
from torch import nn

from dropout_api.candidate import CANDIDATE_PATH
from dropout_api.spec import JobSpec
from dropout_api.task import JobRef, RunRef, VerifyTask


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """MLflow's own store, which runs inside the test, uses what its SQLAlchemy calls deprecated."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"))


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A migrated store; tests use names of their own in it."""
    folder = tmp_path_factory.mktemp("mlflow")
    uri = f"sqlite:///{folder}/mlflow.db"
    client = MlflowClient(uri, uri)
    client.create_experiment("team.digits", artifact_location=f"{folder}/artifacts/team")
    for namespace in ("team", "other"):
        client.create_experiment(f"{namespace}:verified", artifact_location=f"{folder}/artifacts/{namespace}-verified")
    return uri


@pytest.fixture
def client(database: str, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    import mlflow

    torch.manual_seed(0)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    mlflow.set_tracking_uri(database)
    mlflow.set_registry_uri(database)
    return MlflowClient(database, database)


@pytest.fixture(scope="session")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a candidate that passes."""
    torch.manual_seed(0)
    return zoo.candidate(tmp_path_factory.mktemp("sound") / "candidate", zoo.SOUND["mlp"].build()).folder


@pytest.fixture
def given(client: MlflowClient) -> Callable[..., VerifyTask]:
    """Puts a candidate's folder into a run of its own. Returns the verifier's task."""
    def make(folder: Path | None, name: str, **spec: Any) -> VerifyTask:
        experiment = client.get_experiment_by_name("team.digits")
        assert experiment is not None
        run = client.create_run(experiment.experiment_id)
        if folder:
            client.log_artifacts(run.info.run_id, str(folder), CANDIDATE_PATH)
        return VerifyTask(
            job=JobRef(cluster="c", namespace="team", name=name, uid=f"uid-{name}"),
            run=RunRef(id=run.info.run_id, experiment_id=experiment.experiment_id), image_id="trainer@sha256:1",
            spec=JobSpec.model_validate({"model": {"factory": "mlp"}, "data": {"factory": "sklearn", "args": {"name": "digits"}}, **spec}),
        )

    return make


@pytest.fixture
def broken(tmp_path: Path) -> Callable[[nn.Module, str], Path]:
    def make(network: nn.Module, mode: str = "eval") -> Path:
        return zoo.candidate(tmp_path / "candidate", network, mode).folder

    return make
