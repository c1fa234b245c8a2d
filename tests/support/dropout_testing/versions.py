"""Model versions in a real registry: as the verifier makes them, and as somebody makes them by hand."""

import hashlib
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dropout_api.names import Tag, verified_experiment
from dropout_testing.mlflow_server import MlflowServer
from dropout_testing.signing import SigningKey, folder_with, statement

ALIAS = "champion"
PROGRAM = "0" * 64


@dataclass(frozen=True)
class Registrar:
    """Registers versions of models on one server."""

    server: MlflowServer
    key: SigningKey
    folder: Path

    def by_gate(self, model: str, key: SigningKey | None = None) -> str:
        """A signed version with its alias, as the verifier leaves it. Gives its number."""
        text = statement(model, PROGRAM)
        files = folder_with(self.folder / uuid.uuid4().hex, text)
        (key or self.key).sign(files)
        return self.register(model, files, verified_experiment(model.partition(".")[0]), gate_tags(text), user="verifier")

    def by_hand(self, model: str) -> str:
        """A version by somebody who may, with the alias that serving goes by."""
        files = self.folder / uuid.uuid4().hex
        files.mkdir()
        (files / "MLmodel").write_text("flavors: {}\n")
        return self.register(model, files, "notebooks", {})

    def register(self, model: str, files: Path, experiment: str, tags: dict[str, str], user: str = "admin") -> str:
        with self.server.acting_as(user) as client:
            found = client.get_experiment_by_name(experiment)
            holder = client.create_logged_model(found.experiment_id if found else client.create_experiment(experiment))
            client.log_model_artifacts(holder.model_id, str(files))
            client.finalize_logged_model(holder.model_id, "READY")
            if not client.search_registered_models(f"name = '{model}'"):
                client.create_registered_model(model)
            made = client.create_model_version(model, f"models:/{holder.model_id}", tags=tags, model_id=holder.model_id)
            client.set_registered_model_alias(model, ALIAS, made.version)
        return str(made.version)

    def alias(self, model: str, number: str, alias: str) -> None:
        with self.server.acting_as("admin") as client:
            client.set_registered_model_alias(model, alias, number)

    def aliases(self, model: str) -> dict[str, str]:
        """Alias → version."""
        query = f"2.0/mlflow/registered-models/get?name={model}"
        found = self.server.request("GET", query)["registered_model"].get("aliases", [])
        return {item["alias"]: str(item["version"]) for item in found}

    def tags(self, model: str, number: str) -> dict[str, str]:
        query = f"2.0/mlflow/model-versions/get?name={model}&version={number}"
        found: list[dict[str, Any]] = self.server.request("GET", query)["model_version"].get("tags", [])
        return {item["key"]: item["value"] for item in found}


def gate_tags(text: bytes) -> dict[str, str]:
    """The tags that the operator asks for."""
    digest = hashlib.sha256(text).hexdigest()
    return {Tag.VERDICT.value: "Passed", Tag.DIGEST.value: PROGRAM, Tag.STATEMENT_DIGEST.value: digest}
