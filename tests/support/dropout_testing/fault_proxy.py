"""A reverse proxy between the operator and a server, that fails on purpose: plain HTTP in, whatever the server speaks out."""

import asyncio
import contextlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import aiohttp
from aiohttp import web

from dropout_testing.processes import free_port, wait_until

Kind = Literal["drop", "lose", "hang", "truncate", "gone"]
"""drop: no answer, nothing done. lose: done, but the answer is lost. hang: silence. truncate: half an answer. gone: a watch's ERROR 410."""


@dataclass
class Fault:
    """What goes wrong with the next `times` requests that match: a kind, or an HTTP status."""

    method: str
    path: str
    does: Kind | int
    times: int
    headers: dict[str, str] = field(default_factory=dict)
    hits: int = 0

    def matches(self, method: str, path: str) -> bool:
        return self.hits < self.times and re.fullmatch(self.method, method) is not None and re.search(self.path, path) is not None


@dataclass
class FaultProxy:
    """Forwards everything to `upstream` but for the faults that were injected."""

    upstream: str
    port: int = field(default_factory=free_port)
    faults: list[Fault] = field(default_factory=list)
    seen: list[tuple[str, str]] = field(default_factory=list)
    _watches: list[web.Request] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def inject(self, method: str, path: str, does: Kind | int, times: int = 1, **headers: str) -> Fault:
        """`path` is a regular expression that is looked for in path and query."""
        fault = Fault(method, path, does, times, {name.replace("_", "-"): value for name, value in headers.items()})
        self.faults.append(fault)
        return fault

    def heal(self) -> None:
        self.faults.clear()

    def cut_watches(self) -> None:
        """Drops the connection of every watch that is open now."""
        for request in list(self._watches):
            request.task.get_loop().call_soon_threadsafe(_cut, request)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        path = str(request.rel_url)
        self.seen.append((request.method, path))
        fault = next((fault for fault in self.faults if fault.matches(request.method, path)), None)
        if fault is None and "watch" in request.query:
            return await self._watch(request)
        if fault is None:
            return await self._forward(request)
        fault.hits += 1
        match fault.does:
            case int():
                return _refusal(fault.does, fault.headers)
            case "drop":
                return _cut(request)
            case "hang":
                await asyncio.sleep(3600)
                return _cut(request)
            case "gone":
                return await _expired(request)
            case "lose":
                await request.read()
                await self._send(request, None)
                return _cut(request)
            case "truncate":
                return await self._forward(request, cut=True)

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        self._watches.append(request)
        try:
            return await self._forward(request)
        finally:
            self._watches.remove(request)

    async def _forward(self, request: web.Request, cut: bool = False) -> web.StreamResponse:
        response = web.StreamResponse()
        await self._send(request, response, cut)
        return _cut(request) if cut else response

    async def _send(self, request: web.Request, response: web.StreamResponse | None, cut: bool = False) -> None:
        headers = {name: value for name, value in request.headers.items() if name.lower() not in ("host", "connection", "accept-encoding")}
        session: aiohttp.ClientSession = request.app[SESSION]
        target = session.request(
            request.method, self.upstream + str(request.rel_url), data=await request.read() or None, headers=headers, ssl=False,
            allow_redirects=False,
        )
        async with target as answer:
            if response is None:
                await answer.read()
                return
            response.set_status(answer.status)
            for name in ("Content-Type", "Retry-After", "Location"):
                if name in answer.headers:
                    response.headers[name] = answer.headers[name]
            await response.prepare(request)
            async for piece in answer.content.iter_any():
                if cut:
                    await response.write(piece[:len(piece) // 2])
                    return
                await response.write(piece)
            await response.write_eof()


SESSION = web.AppKey("session", aiohttp.ClientSession)


def _refusal(status: int, headers: dict[str, str]) -> web.Response:
    body: dict[str, Any] = {
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "injected", "reason": "Injected", "code": status,
    }
    return web.json_response(body, status=status, headers=headers)


async def _expired(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    status = {"kind": "Status", "status": "Failure", "reason": "Expired", "code": 410, "message": "too old resource version"}
    await response.write(json.dumps({"type": "ERROR", "object": status}).encode() + b"\n")
    await response.write_eof()
    return response


def _cut(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


@contextlib.contextmanager
def fault_proxy(upstream: str) -> Iterator[FaultProxy]:
    """Runs a proxy in a thread of its own until the block is left."""
    proxy, up, loop = FaultProxy(upstream), threading.Event(), asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        app = web.Application(client_max_size=2**26)
        app.router.add_route("*", "/{path:.*}", proxy.handle)
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None), auto_decompress=False) as session:
            app[SESSION] = session
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", proxy.port).start()
            up.set()
            await stop.wait()
            await runner.cleanup()

    def run() -> None:
        loop.run_until_complete(serve())
        left = asyncio.all_tasks(loop)  # requests that were to hang
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    wait_until("the proxy", up.is_set, 20)
    try:
        yield proxy
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(20)
        loop.close()
