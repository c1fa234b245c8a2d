"""MLflow's registry as the operator guards it: versions read, two small files fetched, aliases taken away.

Reading is separate from judging (`guard`) and from when to look (`quarantine`).
"""

import os
import tempfile
from pathlib import Path
from typing import Any

from dropout_api.binding import SIGNATURE, STATEMENT
from dropout_api.names import Tag, verified_experiment
from dropout_operator.guard import Files, Version
from dropout_operator.mlflow_calls import Calls, pages
from dropout_operator.settings import Settings

THREADS = 2
PAGE = 1000
MAX_FILE = 4 << 20
MAX_REASON = 500
WEBHOOK = "dropout-operator"
EVENTS = ("model_version.created", "model_version_alias.created", "model_version_tag.set", "model_version_tag.deleted")


class Registry:
    """Every method may be repeated, and raises TrackingError when MLflow did not do what was asked."""

    def __init__(self, settings: Settings) -> None:
        self._call = Calls(settings.mlflow_uri, THREADS)
        self._client = self._call.client
        self._uri = settings.mlflow_uri

    async def versions(self, model: str | None = None) -> list[Version]:
        """The versions of one model, or all that there are, with the aliases that point at them."""
        return await self._call(self._versions, model)

    async def files(self, version: Version) -> Files:
        """What lies under the version's source; it must be a logged model."""
        return await self._call(self._files, version)

    async def quarantine(self, version: Version, reason: str) -> None:
        """Takes the version's aliases away and writes on it why."""
        await self._call(self._quarantine, version, reason)

    async def ensure_webhook(self, url: str, secret: str) -> None:
        """Lets MLflow call `url` when a version, an alias or a tag is written. Its secret cannot be read, so it is set each time."""
        await self._call(self._ensure_webhook, url, secret)

    def _versions(self, model: str | None) -> list[Version]:
        named = {"filter_string": f"name = '{model}'"} if model else {}
        models = pages(self._client.search_registered_models, max_results=PAGE, **named)
        aliases = {found.name: found.aliases for found in models}
        found = pages(self._client.search_model_versions, max_results=PAGE, **named)
        return [_version(raw, aliases.get(raw.name, {})) for raw in found]

    def _files(self, version: Version) -> Files:
        assert version.copy is not None
        holder = self._client.get_logged_model(version.copy)
        verified = self._client.get_experiment_by_name(verified_experiment(version.tenant))
        if verified is None or holder.experiment_id != verified.experiment_id:
            return Files(in_verified=False)
        return Files(True, self._file(version.copy, STATEMENT), self._file(version.copy, SIGNATURE))

    def _file(self, copy: str, path: str) -> bytes | None:
        """A file of a logged model, None where there is none. One that is too large is cut off, so that no digest fits it."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        listed = {info.path: info.file_size for info in self._client.list_logged_model_artifacts(copy, os.path.dirname(path) or None)}
        if path not in listed:
            return None
        if (listed[path] or 0) > MAX_FILE:
            return b""
        with tempfile.TemporaryDirectory(prefix="registry-") as folder:
            holder = get_artifact_repository(f"models:/{copy}", self._uri, self._uri)  # a URI with a path would be a version's
            file = holder.download_artifacts(path, folder)
            with Path(file).open("rb") as content:
                return content.read(MAX_FILE)

    def _quarantine(self, version: Version, reason: str) -> None:
        for alias in version.aliases:
            self._take(version, alias)
        if version.tags.get(Tag.QUARANTINED) != reason[:MAX_REASON]:
            self._client.set_model_version_tag(version.model, version.number, Tag.QUARANTINED.value, reason[:MAX_REASON])

    def _take(self, version: Version, alias: str) -> None:
        """Deletes the alias, unless it has been pointed at another version meanwhile."""
        from mlflow.exceptions import MlflowException

        try:
            pointed = self._client.get_model_version_by_alias(version.model, alias)
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return
            raise
        if str(pointed.version) == version.number:
            self._client.delete_registered_model_alias(version.model, alias)

    def _ensure_webhook(self, url: str, secret: str) -> None:
        found = [hook for hook in pages(self._client.list_webhooks, max_results=100) if hook.url == url]
        for other in found[1:]:
            self._client.delete_webhook(other.webhook_id)
        if found:
            self._client.update_webhook(found[0].webhook_id, events=list(EVENTS), secret=secret, status="ACTIVE")
        else:
            self._client.create_webhook(WEBHOOK, url, list(EVENTS), secret=secret)


def _version(raw: Any, aliases: dict[str, Any]) -> Version:
    number = str(raw.version)
    pointing = tuple(sorted(alias for alias, target in aliases.items() if str(target) == number))
    return Version(raw.name, number, raw.source or "", dict(raw.tags), pointing)
