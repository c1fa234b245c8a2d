"""kopf as the event source: it watches, and its handlers only say whom to look at.

Only `on.event` handlers are used. They cause no PATCH and no finalizer, so nothing of ours hangs on kopf's bookkeeping;
the settings follow from its known pitfalls and are explained one by one.
"""

import asyncio
import dataclasses
import logging
import os
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import kopf

from dropout_api.names import API_VERSION, GROUP, PLURAL, Label
from dropout_operator.controller import Controller

logger = logging.getLogger(__name__)
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
JOBS = ("batch", "v1", "jobs")
PODS = ("v1", "pods")
"""Watched, because a pod that is evicted or deleted may show it for less than a second before it is gone."""
MAX_RESTARTS_IN_A_ROW = 10
CALM_SECONDS = 300.0
EXIT_SECONDS = 15.0  # kopf waits for its queues for 10


class Forever:
    """An endless pause list that can be started anew, which kopf needs: when a finite one is used up, the watch ends the process."""

    def __iter__(self) -> Iterator[float]:
        pause = 1.0
        while True:
            yield pause * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
            pause = min(30.0, pause * 2)


class DeafError(Exception):
    """kopf had ended and did not come to its end: a watch that waits for a login is left waiting."""


def registry(controller: Controller, ending: asyncio.Event) -> kopf.OperatorRegistry:
    """The handlers, bound to one controller. `ending` is set when this life of kopf is over, for whatever reason."""
    handlers = kopf.OperatorRegistry()

    @kopf.on.startup(registry=handlers)
    async def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
        _configure(settings)

    @kopf.on.cleanup(registry=handlers)
    async def cleanup(**_: Any) -> None:
        ending.set()

    @kopf.on.login(registry=handlers)
    async def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
        await asyncio.sleep(0.2)  # kopf logs in again at once and without end when a login does not help
        found = _in_cluster() if os.environ.get("KUBERNETES_SERVICE_HOST") else kopf.login_with_kubeconfig(**kwargs)
        # Far below a token's life, so that kopf asks anew before a 401; and never the same twice, because after a 401 kopf
        # takes credentials that it knows for wrong ones and hangs.
        return found and dataclasses.replace(found, expiration=datetime.now(UTC) + timedelta(minutes=10))

    @kopf.on.event(GROUP, API_VERSION, PLURAL, registry=handlers)
    async def training_job(event: Any, **_: Any) -> None:
        meta = event["object"]["metadata"]
        if event["type"] == "DELETED":
            controller.lost_job(meta["namespace"], meta["name"])
        else:
            controller.saw_job(event["object"])

    @kopf.on.event(*PODS, registry=handlers, labels={Label.UID: kopf.PRESENT})
    @kopf.on.event(*JOBS, registry=handlers, labels={Label.UID: kopf.PRESENT})
    async def child(event: Any, **_: Any) -> None:
        controller.saw_child(event["object"])

    return handlers


def _configure(settings: kopf.OperatorSettings) -> None:
    settings.peering.standalone = True  # another kopf operator in the cluster could pause this one
    settings.posting.enabled = False  # Events are the controller's
    settings.watching.server_timeout = random.randint(240, 360)  # noqa: S311 - so that watches do not all renew at once
    settings.watching.client_timeout = settings.watching.server_timeout + 30
    settings.watching.connect_timeout = 5
    settings.watching.reconnect_backoff = 1.0
    for kind in (JOBS, PODS):
        settings.watching.label_selectors[kind] = Label.UID  # filtered by the server: a cluster has many that are not ours
    settings.networking.request_timeout = 15
    settings.networking.connect_timeout = 5
    settings.networking.error_backoffs = Forever()
    settings.networking.enforce_retry_after = True
    settings.queueing.exit_timeout = 10
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)


def _in_cluster() -> kopf.ConnectionInfo:
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    host = f"[{host}]" if ":" in host else host
    return kopf.ConnectionInfo(
        server=f"https://{host}:{port}", ca_path=str(SERVICE_ACCOUNT / "ca.crt"), token=(SERVICE_ACCOUNT / "token").read_text().strip(),
    )


async def _live(controller: Controller, stop: asyncio.Event) -> None:
    """One life of kopf. Raises what ended it, or DeafError."""
    ending = asyncio.Event()
    life = asyncio.create_task(kopf.operator(registry=registry(controller, ending), clusterwide=True, stop_flag=stop))
    over = asyncio.create_task(ending.wait())
    try:
        await asyncio.wait({life, over}, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait({life}, timeout=EXIT_SECONDS)
        if not life.done():
            raise DeafError(f"kopf has not ended within {EXIT_SECONDS:.0f} s")
        await life
    finally:
        over.cancel()
        life.cancel()


async def watch(controller: Controller, stop: asyncio.Event) -> None:
    """Watches until `stop`. kopf ends on any odd answer of the API server, so it is started again, with a pause."""
    loop, failures, began = asyncio.get_running_loop(), 0, 0.0
    while not stop.is_set():
        began = loop.time()
        try:
            await _live(controller, stop)
            return
        except Exception as error:
            failures = 1 if loop.time() - began > CALM_SECONDS else failures + 1
            if failures > MAX_RESTARTS_IN_A_ROW:
                raise
            controller.metrics.watch_restarts.inc()
            logger.warning("the watch ended (%s: %s) and is started again", type(error).__name__, error)
            await asyncio.sleep(min(10.0, failures) * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
