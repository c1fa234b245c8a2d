import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from dropout_testing import zoo
from mlflow import MlflowClient
from torch import nn

from dropout_api.candidate import CANDIDATE_PATH
from dropout_api.spec import JobSpec
from dropout_api.task import JobRef, RunRef, VerifyTask
from dropout_trainer.verify import signing
from dropout_trainer.verify.run import verify

with warnings.catch_warnings():  # MLflow warns about its own classes when it is imported
    warnings.simplefilter("ignore")
    import mlflow.pyfunc


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
def broken(tmp_path: Path) -> Callable[..., Path]:
    def make(network: nn.Module, mode: str = "eval", **how: Any) -> Path:
        return zoo.candidate(tmp_path / "candidate", network, mode, **how).folder

    return make


@dataclass(frozen=True)
class KeyPair:
    private: Path
    public: Path


@pytest.fixture(scope="session")
def key_pair(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], KeyPair]:
    """Makes a new EC P-256 key, as files in PEM."""
    def make() -> KeyPair:
        folder, key = tmp_path_factory.mktemp("key"), ec.generate_private_key(ec.SECP256R1())
        pair = KeyPair(folder / "signing.pem", folder / "verifying.pem")
        pair.private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        pair.public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        return pair

    return make


@pytest.fixture(scope="session")
def keys(key_pair: Callable[[], KeyPair]) -> KeyPair:
    """The platform's key."""
    return key_pair()


@pytest.fixture
def registered(client: MlflowClient, given: Callable[..., VerifyTask], sound: Path, keys: KeyPair) -> Callable[..., str]:
    """Registers the sound candidate as `team.NAME`, signed unless told otherwise. Returns the version's URI."""
    def make(name: str, signed: bool = True, **spec: Any) -> str:
        pair = signing.Keys(keys.private, signing.public_keys(keys.public)) if signed else signing.UNSIGNED
        uri = verify(given(sound, name, **spec), client, pair).model_uri
        assert uri is not None
        return uri

    return make


@pytest.fixture
def files_of(client: MlflowClient) -> Callable[[str], Path]:
    """The folder in which the store keeps a version's files: who writes there changes the version."""
    def where(uri: str) -> Path:
        _, name, number = uri.split("/")
        source = client.get_model_version(name, number).source
        return Path(client.get_logged_model(source.removeprefix("models:/")).artifact_location.removeprefix("file://"))

    return where
