"""The progress poller against a real server that misbehaves in every way a user's pod could."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
from aiohttp import web
from dropout_testing.processes import free_port
from dropout_testing.worlds import ended_pod, pod, running_pod, train_job

from dropout_api.report import ProgressSample
from dropout_operator import progress
from dropout_operator.progress import ProgressPoller
from dropout_operator.world import PodView

GOOD = {"attempt": 1, "epoch": 2, "epochs": 3, "metrics": {"val_loss": 0.5}}
POD = running_pod(train_job(), ip="127.0.0.1")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def poll(handler: Handler, monkeypatch: pytest.MonkeyPatch, view: PodView = POD) -> tuple[ProgressSample | None, list[web.Request]]:
    """What the poller makes of a pod that answers with `handler`, and what the pod was asked."""
    asked: list[web.Request] = []
    port = free_port()
    monkeypatch.setattr(progress, "METRICS_PORT", port)
    monkeypatch.setattr(progress, "SECONDS", 0.5)

    async def serve(request: web.Request) -> web.StreamResponse:
        asked.append(request)
        return await handler(request)

    async def main() -> ProgressSample | None:
        app = web.Application()
        app.router.add_get("/{path:.*}", serve)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        poller = ProgressPoller()
        try:
            return await poller.poll(view)
        finally:
            await poller.close()
            await runner.cleanup()

    return asyncio.run(main()), asked


def says(text: str, status: int = 200) -> Handler:
    async def handler(_: web.Request) -> web.StreamResponse:
        return web.Response(text=text, status=status)

    return handler


def test_a_sound_answer_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    found, _ = poll(says(json.dumps(GOOD)), monkeypatch)

    assert found == ProgressSample.model_validate(GOOD)


def test_no_credentials_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    _, (request,) = poll(says(json.dumps(GOOD)), monkeypatch)

    assert not {"authorization", "cookie", "proxy-authorization"} & {name.lower() for name in request.headers}


def test_a_redirect_is_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def redirects(request: web.Request) -> web.StreamResponse:
        if request.path == "/secret":
            return web.json_response(GOOD)
        raise web.HTTPFound("/secret")

    found, asked = poll(redirects, monkeypatch)

    assert found is None
    assert [request.path for request in asked] == ["/progress"]


@pytest.mark.parametrize("text", [
    "", "null", "[]", "{", "NaN",
    json.dumps({**GOOD, "epoch": -1}), json.dumps({**GOOD, "epoch": 10**9}), json.dumps({**GOOD, "epochs": 0}),
    json.dumps({**GOOD, "metrics": {"a b": 1}}), json.dumps({**GOOD, "metrics": {f"m{n}": 1 for n in range(99)}}),
])
def test_a_wrong_answer_is_none(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found, _ = poll(says(text), monkeypatch)

    assert found is None


def test_an_error_page_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    found, _ = poll(says(json.dumps(GOOD), status=500), monkeypatch)

    assert found is None


def test_what_is_not_finite_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    found, _ = poll(says('{"attempt":1,"epoch":1,"epochs":2,"metrics":{"val_loss":NaN,"train_loss":0.5}}'), monkeypatch)

    assert found is None or found.metrics == {"train_loss": 0.5}


def test_a_megabyte_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    found, _ = poll(says(json.dumps({**GOOD, "padding": "x" * 1_000_000})), monkeypatch)

    assert found is None


def test_an_answer_in_pieces_is_read_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    async def in_pieces(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for byte in json.dumps(GOOD).encode():
            await response.write(bytes([byte]))
            await asyncio.sleep(0)
        return response

    found, _ = poll(in_pieces, monkeypatch)

    assert found == ProgressSample.model_validate(GOOD)


@pytest.mark.parametrize("before_headers", [True, False])
def test_a_slow_answer_is_given_up(before_headers: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    async def slow(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        if before_headers:
            await asyncio.sleep(30)
        await response.prepare(request)
        while True:
            await response.write(b" ")
            await asyncio.sleep(0.05)

    async def within_bound() -> None:
        async with asyncio.timeout(10):
            found, _ = await asyncio.to_thread(poll, slow, monkeypatch)
        assert found is None

    asyncio.run(within_bound())


@pytest.mark.parametrize("view", [
    replace(POD, host_network=True), replace(POD, ip=None), pod(train_job(), ip="127.0.0.1"), ended_pod(train_job(), ip="127.0.0.1"),
], ids=["host network", "no address", "not started", "ended"])
def test_such_a_pod_is_not_asked(view: PodView, monkeypatch: pytest.MonkeyPatch) -> None:
    found, asked = poll(says(json.dumps(GOOD)), monkeypatch, view)

    assert (found, asked) == (None, [])


def test_a_pod_that_is_gone_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    found, _ = poll(says(json.dumps(GOOD)), monkeypatch, replace(POD, ip="127.0.0.2"))

    assert found is None
