"""The operator's HTTP port: liveness, readiness, metrics, and MLflow's calls."""

from collections.abc import Callable

from aiohttp import web

from dropout_operator import webhook
from dropout_operator.metrics import Metrics


async def serve(port: int, metrics: Metrics, ready: Callable[[], bool], hook: webhook.Hook | None = None) -> web.AppRunner:
    """Starts the server; `cleanup()` of what it returns ends it. Without a `hook` nobody may call.

    Liveness says that the event loop turns, no more: an API server that is away is no reason to be restarted.
    """

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def readyz(_: web.Request) -> web.Response:
        return web.Response(text="ok") if ready() else web.Response(text="the training jobs are not listed yet", status=503)

    async def show(_: web.Request) -> web.Response:
        return web.Response(body=metrics.text(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", show)])
    if hook is not None:
        app.add_routes([web.post(webhook.PATH, hook.answer)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, port=port).start()
    return runner
