"""The Kubernetes API as this operator uses it: JSON in, JSON out, one error type that says what to do next.

It rides on the official asyncio client for configuration, tokens and connections, but moves plain dicts, because typed
deserialisation costs more than the requests themselves.
"""

import json
import os
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
from kubernetes.aio import client, config

from dropout_api.names import API_VERSION, GROUP, PLURAL
from dropout_operator.objects import Object

REQUEST_TIMEOUT = 15.0
APPLY = "application/apply-patch+yaml"
FIELD_MANAGER = "dropout-operator"
PAGE = 500


class ApiError(Exception):
    """The API server's refusal, or silence (`status` 0)."""

    def __init__(self, status: int, message: str, reason: str = "", retry_after: float | None = None) -> None:
        super().__init__(f"{status} {reason}: {message}"[:500])
        self.status = status
        self.reason = reason
        self.message = message[:500]
        self.retry_after = retry_after

    @property
    def retryable(self) -> bool:
        return self.status in (0, 408, 429) or self.status >= 500

    @property
    def namespace_terminating(self) -> bool:
        return self.status in (403, 409) and "being terminated" in self.message


class Kube:
    """One connection pool to one API server."""

    def __init__(self, configuration: Any) -> None:
        configuration.client_session_kwargs = {"trust_env": False}
        self._configuration = configuration
        self._client = client.ApiClient(configuration)

    @classmethod
    async def connect(cls) -> "Kube":
        """From the pod's service account, or the current kubeconfig context outside a cluster."""
        configuration = client.Configuration()
        if os.environ.get("KUBERNETES_SERVICE_HOST"):
            config.load_incluster_config(client_configuration=configuration)
        else:
            await config.load_kube_config(client_configuration=configuration)
        return cls(configuration)

    async def close(self) -> None:
        await self._client.close()

    async def get(self, path: str) -> Object | None:
        """The object at `path`, None where there is none."""
        try:
            return await self._request("GET", path)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def list(self, path: str, **selectors: str) -> AsyncIterator[Object]:
        """Every object of a collection, read in pages."""
        cursor = ""
        while True:
            query = {name: value for name, value in selectors.items() if value} | {"limit": str(PAGE)}
            answer = await self._request("GET", path, query | ({"continue": cursor} if cursor else {}))
            for item in answer.get("items", []):
                yield item
            cursor = answer.get("metadata", {}).get("continue", "")
            if not cursor:
                return

    async def create(self, path: str, body: Object) -> Object:
        return await self._request("POST", path, {"fieldManager": FIELD_MANAGER}, body)

    async def apply(self, path: str, body: Object) -> Object:
        """Server-side apply: this operator's fields become exactly those in `body`."""
        return await self._request("PATCH", path, {"fieldManager": FIELD_MANAGER, "force": "true"}, body, APPLY)

    async def delete(self, path: str, uid: str | None = None, propagation: str = "Background") -> None:
        """Deletes the object at `path`, and only the one with `uid`; that it is gone already is fine."""
        options: Object = {"propagationPolicy": propagation}
        if uid:
            options["preconditions"] = {"uid": uid}
        try:
            await self._request("DELETE", path, body=options)
        except ApiError as error:
            if error.status not in (404, 409):
                raise

    async def _request(
        self, method: str, path: str, query: dict[str, str] | None = None, body: Object | None = None, content: str = "application/json",
    ) -> Object:
        headers = {"Accept": "application/json", "Content-Type": content, "User-Agent": FIELD_MANAGER}
        token = await self._configuration.get_api_key_with_prefix("BearerToken")
        if token:
            headers["Authorization"] = token
        url = f"{self._configuration.host}{path}" + (f"?{urlencode(query)}" if query else "")
        try:
            response = await self._client.call_api(method, url, headers, body, _request_timeout=REQUEST_TIMEOUT)
            text = await response.read()
        except (OSError, TimeoutError, aiohttp.ClientError, client.ApiException) as error:
            raise ApiError(0, f"{type(error).__name__}: {error}", "Unreachable") from error
        return _answer(response, text)


def _answer(response: Any, text: bytes) -> Object:
    try:
        answer = json.loads(text)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise ApiError(response.status if response.status >= 400 else 0, text.decode("utf-8", "replace"), "NotJson")
    if response.status >= 400:
        after = response.getheader("Retry-After")
        raise ApiError(
            response.status, str(answer.get("message", "")), str(answer.get("reason", "")),
            float(after) if after and after.isdigit() else None,
        )
    return answer


def training_jobs_path(namespace: str | None = None, name: str | None = None, sub: str = "") -> str:
    return _path(f"/apis/{GROUP}/{API_VERSION}", namespace, PLURAL, name) + sub


def jobs_path(namespace: str | None = None, name: str | None = None) -> str:
    return _path("/apis/batch/v1", namespace, "jobs", name)


def core_path(namespace: str | None, plural: str, name: str | None = None) -> str:
    return _path("/api/v1", namespace, plural, name)


def _path(base: str, namespace: str | None, plural: str, name: str | None) -> str:
    scope = f"/namespaces/{quote(namespace, safe='')}" if namespace else ""
    return f"{base}{scope}/{plural}" + (f"/{quote(name, safe='')}" if name else "")
