"""Asks a training pod how far it is. The pod runs its user's code, so its answer is bounded, checked and only shown."""

import aiohttp

from dropout_api.names import METRICS_PORT, PROGRESS_PATH
from dropout_api.report import ProgressSample, parse
from dropout_operator.world import PodView

SECONDS = 2.0
MAX_BYTES = 65_536


class ProgressPoller:
    """Polls over its own connections: no proxy, no redirects, no cookies, no credentials."""

    def __init__(self) -> None:
        self._session = aiohttp.ClientSession(
            trust_env=False, cookie_jar=aiohttp.DummyCookieJar(), timeout=aiohttp.ClientTimeout(total=SECONDS),
            connector=aiohttp.TCPConnector(limit=32, force_close=True),
        )

    async def close(self) -> None:
        await self._session.close()

    async def poll(self, pod: PodView) -> ProgressSample | None:
        """The pod's progress, None where there is none. A pod on the host's network is not asked: its port may be the node's."""
        if pod.ip is None or pod.host_network or pod.started is None or pod.terminated is not None:
            return None
        host = f"[{pod.ip}]" if ":" in pod.ip else pod.ip
        try:
            async with self._session.get(f"http://{host}:{METRICS_PORT}{PROGRESS_PATH}", allow_redirects=False) as response:
                if response.status != 200:
                    return None
                body = await _bounded(response)
        except (aiohttp.ClientError, TimeoutError, OSError):
            return None
        return parse(ProgressSample, body)


async def _bounded(response: aiohttp.ClientResponse) -> bytes | None:
    """The whole body, None when it is too large."""
    body = b""
    async for piece in response.content.iter_any():  # one read() gives what has arrived, which may be a part
        body += piece
        if len(body) > MAX_BYTES:
            return None
    return body
