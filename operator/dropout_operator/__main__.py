"""`python -m dropout_operator`: the operator's process."""

import asyncio
import contextlib
import logging
import sys

from dropout_operator import events
from dropout_operator.apply import Executor
from dropout_operator.controller import Controller
from dropout_operator.kube import ApiError, Kube, core_path
from dropout_operator.metrics import Metrics
from dropout_operator.observe import Observer
from dropout_operator.progress import ProgressPoller
from dropout_operator.quarantine import Quarantine
from dropout_operator.registry import Registry
from dropout_operator.server import serve
from dropout_operator.settings import Settings, SettingsError
from dropout_operator.tracking import Tracking
from dropout_operator.webhook import Hook

logger = logging.getLogger("dropout_operator")


def main() -> int:
    """Runs until told to stop. Exit code 78 for a wrong setting, 1 when the watch cannot be kept up."""
    try:
        settings = Settings.from_environment()
    except SettingsError as error:
        print(f"dropout-operator: {error}", file=sys.stderr)
        return 78
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    asyncio.run(operate(settings))
    return 0


async def operate(settings: Settings) -> None:
    """The whole operator, from connection to clean end."""
    kube, poller, metrics = await Kube.connect(), ProgressPoller(), Metrics()
    cluster = await _cluster_id(kube)
    tracking = Tracking(settings, cluster)
    controller = Controller(kube, tracking, Observer(kube, poller, settings, cluster), Executor(kube, tracking), metrics, settings)
    guard = Quarantine(kube, Registry(settings), metrics, settings) if settings.guard != "Off" else None
    hook = Hook(settings.webhook_secret.encode(), guard.called) if guard and settings.webhook_secret else None
    server = await serve(settings.port, metrics, controller.ready.is_set, hook)
    work = asyncio.create_task(_work(controller, guard))
    stop = asyncio.Event()
    work.add_done_callback(lambda _: stop.set())
    try:
        await controller.working.wait()
        await events.watch(controller, stop)
    finally:
        controller.queue.close()
        if guard:
            guard.queue.close()
        work.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await work
        await server.cleanup()
        await poller.close()
        await kube.close()


async def _work(controller: Controller, guard: Quarantine | None) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(controller.run())
        if guard:
            group.create_task(guard.run())


async def _cluster_id(kube: Kube) -> str:
    """The UID of kube-system, which every cluster has and no two share. Waits for the API server."""
    while True:
        try:
            raw = await kube.get(core_path(None, "namespaces", "kube-system"))
        except ApiError as error:
            if not error.retryable:
                raise
            logger.warning("waiting for the API server: %s", error)
            await asyncio.sleep(2.0)
            continue
        if raw is None:
            raise RuntimeError("there is no namespace kube-system")
        return str(raw["metadata"]["uid"])


if __name__ == "__main__":
    sys.exit(main())
