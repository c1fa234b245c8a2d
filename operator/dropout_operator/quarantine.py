"""Keeps the registry to what came through the gate: looks at versions, and takes the aliases of those that did not.

Level-triggered like everything here: a webhook says only whom to look at, a periodic look at all finds what no webhook told.
What cannot be read is neither gated nor quarantined; it is looked at again.
"""

import asyncio
import hashlib
import logging
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path

from dropout_api.names import API_VERSION, GROUP, KIND, Tag
from dropout_operator.apply import COMPONENT, MAX_EVENT
from dropout_operator.guard import Version, unproven, untold
from dropout_operator.kube import ApiError, Kube, core_path, training_jobs_path
from dropout_operator.metrics import Metrics
from dropout_operator.mlflow_calls import TrackingError
from dropout_operator.objects import Object
from dropout_operator.registry import Registry
from dropout_operator.settings import Settings
from dropout_operator.signatures import Key, VerifyingKeyError, load_keys
from dropout_operator.workqueue import WorkQueue

logger = logging.getLogger(__name__)
WORKERS = 2  # a call is not kept waiting by a look at all
REASON = "VersionQuarantined"


@dataclass
class Quarantine:
    """Everything that the looks need, and what they remember."""

    kube: Kube
    registry: Registry
    metrics: Metrics
    settings: Settings
    queue: WorkQueue[str | None] = field(default_factory=WorkQueue)
    """Names of models to look at; None for a look at all."""
    _pem: bytes | None = None
    _keys: Sequence[Key] = ()
    _judged: dict[tuple[str, str], tuple[object, str | None]] = field(default_factory=dict)
    """For each version what it was judged by, and the reason against it."""
    _told: set[tuple[str, str, tuple[str, ...]]] = field(default_factory=set)

    def called(self, model: str | None) -> None:
        """MLflow says that something of this model was written."""
        self.metrics.webhook.set(1)
        self.queue.add(model)

    async def run(self) -> None:
        """Looks until cancelled."""
        self.queue.add(None)
        async with asyncio.TaskGroup() as group:
            for _ in range(WORKERS):
                group.create_task(self._work())

    async def _work(self) -> None:
        while True:
            model = await self.queue.get()
            try:
                complete = await self._tried(model)
            finally:
                self.queue.done(model)
            if not complete:
                self.queue.fail(model)
                continue
            self.queue.succeed(model)
            if model is None:
                self.queue.add_after(None, self.settings.resync_seconds * random.uniform(0.8, 1.2))  # noqa: S311 - jitter

    async def _tried(self, model: str | None) -> bool:
        """A look of which every error becomes a later look."""
        try:
            if model is None:
                await self._ensure_webhook()
            return await self.look(model)
        except TrackingError as error:
            logger.warning("looking at the registry: %s", error)
        except VerifyingKeyError as error:
            logger.error("nothing in the registry is judged: %s: %s", self.settings.verifying_key, error)
        except Exception:
            logger.exception("looking at the registry: this is a bug")
        return False

    async def look(self, model: str | None = None) -> bool:
        """One look at a model or, without one, at all. False when something could not be read. Raises TrackingError."""
        self._read_keys()
        found = [version for version in await self.registry.versions(model) if self._guarded(version.model)]
        counts, complete = Counter({model: 0} if model else {}), True
        for version in found:
            try:
                reason = await self._reason(version)
                if reason is not None:
                    counts[version.model] += 1
                    await self._set_apart(version, reason)
            except (TrackingError, ApiError) as error:
                logger.warning("%s could not be judged: %s", version.uri, error)
                complete = False
        if model is None:
            self._forget({(version.model, version.number) for version in found})
        self.metrics.show_quarantined(counts, whole=model is None)
        return complete

    async def _reason(self, version: Version) -> str | None:
        """Why the version must not be served. A tag that says so is believed; that nothing says so is not."""
        if told := version.tags.get(Tag.QUARANTINED):
            return told
        judged_by = (version.source, frozenset(version.tags.items()))
        key = (version.model, version.number)
        if key not in self._judged or self._judged[key][0] != judged_by:
            reason = untold(version) or unproven(version, await self.registry.files(version), self._keys)
            self._judged[key] = (judged_by, reason)
        return self._judged[key][1]

    async def _set_apart(self, version: Version, reason: str) -> None:
        enforced = self.settings.guard == "Enforce"
        if enforced and (version.aliases or Tag.QUARANTINED not in version.tags):
            await self.registry.quarantine(version, reason)
            logger.warning("%s is quarantined, its aliases %s are gone: %s", version.uri, list(version.aliases), reason)
        telling = (version.model, version.number, version.aliases)
        if telling not in self._told:
            await self._emit(version, reason)
            self._told.add(telling)

    async def _emit(self, version: Version, reason: str) -> None:
        event = event_body(version, reason, await self._concerned(version), self.settings.guard == "Enforce", datetime.now(UTC))
        try:
            await self.kube.create(core_path(event["metadata"]["namespace"], "events"), event)
        except ApiError as error:
            if error.status != 409 and not error.namespace_terminating:
                raise

    async def _concerned(self, version: Version) -> Object:
        """The training job that the model belongs to by name, the operator's own pod where there is none.

        The namespace comes from the model's name, which is the tenant's; a tag may only say which of its jobs.
        """
        namespace, _, name = version.model.partition(".")
        if version.tags.get(Tag.NAMESPACE) == namespace:
            name = version.tags.get(Tag.NAME) or name
        job = await self.kube.get(training_jobs_path(namespace, name)) if name else None
        if job is not None:
            kind: Object = {"apiVersion": f"{GROUP}/{API_VERSION}", "kind": KIND, "uid": job["metadata"]["uid"]}
            return {**kind, "namespace": namespace, "name": name}
        own = {"apiVersion": "v1", "kind": "Pod", "namespace": self.settings.namespace, "name": self.settings.pod_name}
        return own | ({"uid": self.settings.pod_uid} if self.settings.pod_uid else {})

    async def _ensure_webhook(self) -> None:
        """Where MLflow refuses, or has no webhooks, the periodic look is what there is."""
        if not (self.settings.webhook_url and self.settings.webhook_secret):
            return
        try:
            await self.registry.ensure_webhook(self.settings.webhook_url, self.settings.webhook_secret)
            self.metrics.webhook.set(1)
        except TrackingError as error:
            self.metrics.webhook.set(0)
            logger.info("MLflow makes no webhook for %s: %s", self.settings.webhook_url, error)

    def _read_keys(self) -> None:
        """The file may be replaced while this runs; what was judged by other keys is judged again."""
        if not self.settings.verifying_key:
            return
        try:
            pem = Path(self.settings.verifying_key).read_bytes()
        except OSError as error:
            raise VerifyingKeyError(error.strerror) from None
        if pem != self._pem:
            self._keys, self._pem = load_keys(pem), pem
            self._judged.clear()

    def _guarded(self, model: str) -> bool:
        return any(fnmatchcase(model, pattern) for pattern in self.settings.guarded_models)

    def _forget(self, there: set[tuple[str, str]]) -> None:
        self._judged = {key: value for key, value in self._judged.items() if key in there}
        self._told = {key for key in self._told if key[:2] in there}


def event_body(version: Version, reason: str, concerned: Object, enforced: bool, now: datetime) -> Object:
    """A core/v1 Event whose name follows from what it tells, so that telling it twice gives one."""
    aliases = ", ".join(version.aliases)
    done = (f"; it has lost the alias {aliases}" if enforced else f"; it has the alias {aliases}") if aliases else ""
    message = f"{version.uri} must not be served: {reason}{done}. Register through a DropoutTrainingJob"
    digest = hashlib.sha256(message.encode()).hexdigest()[:16]
    time = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "apiVersion": "v1", "kind": "Event", "metadata": {"name": f"quarantine.{digest}", "namespace": concerned["namespace"]},
        "involvedObject": concerned, "type": "Warning", "reason": REASON, "message": message[:MAX_EVENT], "count": 1,
        "firstTimestamp": time, "lastTimestamp": time, "source": {"component": COMPONENT}, "reportingComponent": COMPONENT,
    }
