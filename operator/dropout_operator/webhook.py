"""MLflow's webhook: a call that only says whom to look at, so all that matters is that MLflow made it.

Signed as MLflow does it, after Standard Webhooks: `v1,` and the base64 of HMAC-SHA256 over `delivery id.timestamp.body`.
"""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from aiohttp import web

PATH = "/hooks/mlflow"
SIGNATURE, TIMESTAMP, DELIVERY = "X-MLflow-Signature", "X-MLflow-Timestamp", "X-MLflow-Delivery-Id"
WINDOW = 300.0
MAX_NAME = 256


@dataclass(frozen=True)
class Hook:
    """Answers MLflow's calls; `called` gets the model's name, or None when the call names none that is fit for a search."""

    secret: bytes
    called: Callable[[str | None], None]

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.read()  # aiohttp's limit of 1 MiB holds
        if not authentic(self.secret, request.headers, body, time.time()):
            return web.Response(text=f"{SIGNATURE} does not fit", status=401)
        self.called(named(body))
        return web.Response(status=204)


def sign(secret: bytes, delivery: str, timestamp: str, body: bytes) -> str:
    """The value of X-MLflow-Signature."""
    digest = hmac.new(secret, f"{delivery}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode()


def authentic(secret: bytes, headers: Mapping[str, str], body: bytes, now: float) -> bool:
    """Whether whoever sent this knows the secret and sent it within five minutes of `now`, in seconds since 1970."""
    delivery, timestamp = headers.get(DELIVERY, ""), headers.get(TIMESTAMP, "")
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) < 16 and abs(now - int(timestamp)) <= WINDOW):
        return False
    expected, given = sign(secret, delivery, timestamp, body), headers.get(SIGNATURE, "")
    return hmac.compare_digest(expected.encode(), given.encode("utf-8", "surrogateescape"))


def named(body: bytes) -> str | None:
    """The model that a payload is about, None where a look at all is simpler."""
    try:
        name = json.loads(body)["data"]["name"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    return name if isinstance(name, str) and 0 < len(name) <= MAX_NAME and "'" not in name else None
