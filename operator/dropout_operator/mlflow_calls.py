"""Calls to MLflow from an event loop.

The client is synchronous and patient by default (minutes against a dead server), so it runs in a small thread pool with
short time-outs. An outage becomes `TrackingError` and delays what wanted the call; it never blocks the loop.
"""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import requests

T = TypeVar("T")
CALL_SECONDS = 20.0
REQUEST_SECONDS = "5"


class TrackingError(Exception):
    """MLflow did not do what was asked; worth trying again."""


class Calls:
    """A client and the threads that it is called in."""

    def __init__(self, uri: str, threads: int) -> None:
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", REQUEST_SECONDS)
        os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"  # the client would repeat a POST that was done and not answered
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        os.environ["MLFLOW_TRACKING_URI"] = uri  # what reads a logged model's files asks the environment, too
        from mlflow.tracking import MlflowClient  # slow to import, and only after the environment is set

        self.client = MlflowClient(uri, uri)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="mlflow")

    async def __call__(self, function: Callable[..., T], *arguments: Any) -> T:
        """What `function` returns. Raises TrackingError."""
        from mlflow.exceptions import MlflowException

        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CALL_SECONDS):
                return await loop.run_in_executor(self._pool, function, *arguments)
        except (MlflowException, requests.RequestException, TimeoutError) as error:
            raise TrackingError(_short(error)) from error


def pages(search: Callable[..., Any], *arguments: Any, **options: Any) -> list[Any]:
    """Everything that a paged search of the client finds."""
    found: list[Any] = []
    token = None
    while True:
        page = search(*arguments, page_token=token, **options)
        found += page
        token = page.token
        if not token:
            return found


def _short(error: BaseException) -> str:
    text = str(error) or type(error).__name__
    return text.splitlines()[0][:300]
