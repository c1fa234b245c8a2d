"""What the training process says of itself while it runs: `/metrics` for Prometheus, `/progress` for the operator, a watcher for people."""

import logging
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Protocol

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client import Gauge as Series

from dropout_api.names import METRICS_PATH, METRICS_PORT, PROGRESS_PATH, Gauge
from dropout_api.report import ProgressSample
from dropout_trainer.train.loop import EpochResult

log = logging.getLogger(__name__)


class Watcher(Protocol):
    """Shows a training to people. The loop waits for it."""

    def begin(self, at: ProgressSample, before: int, steps: int) -> None:
        """A training of `steps` optimiser steps in each epoch begins or goes on, after `before` epochs of those that came before it."""

    def step(self, steps: int) -> None:
        """So many optimiser steps of it are done."""

    def epoch(self, result: EpochResult, at: ProgressSample) -> None: ...


class Lines:
    """A line of the log for each epoch."""

    def begin(self, at: ProgressSample, before: int, steps: int) -> None: ...

    def step(self, steps: int) -> None: ...

    def epoch(self, result: EpochResult, at: ProgressSample) -> None:
        log.info("%s", result)


class Telemetry:
    """The latest epoch, served on `port` by a daemon thread from `start` to `stop`.

    `tracking_healthy` is asked at each request. A port that is taken costs the metrics, not the training.
    """

    def __init__(
        self, attempt: int, epochs: int, tracking_healthy: Callable[[], bool] = lambda: True, watcher: Watcher | None = None,
    ) -> None:
        self._healthy, self._watcher = tracking_healthy, watcher or Lines()
        self.stepped = self._watcher.step
        self._seconds, self._before, self._skipped = 0.0, 0, 0
        self._sample = ProgressSample(attempt=attempt, epoch=0, epochs=epochs)
        self._server: ThreadingHTTPServer | None = None
        self._registry = CollectorRegistry()
        self._epoch = Series(Gauge.EPOCH, "Epochs that have ended.", registry=self._registry)
        self._losses = {
            "train_loss": Series(Gauge.TRAIN_LOSS, "Loss on a sample of the training set, in eval mode.", registry=self._registry),
            "val_loss": Series(Gauge.VAL_LOSS, "Loss on the validation set, in eval mode.", registry=self._registry),
            "val_gap": Series(Gauge.VAL_GAP, "Validation loss minus training loss, both in eval mode.", registry=self._registry),
        }
        for series in self._losses.values():
            series.set(float("nan"))  # a loss of 0 would be a lie until the first epoch has ended
        Series(Gauge.EPOCHS, "Epochs that training may take.", registry=self._registry).set(epochs)

    def start(self, port: int = METRICS_PORT) -> int:
        """Serves until `stop`; returns the port, 0 when nothing is served. With `port` 0 the system chooses one."""
        try:
            self._server = ThreadingHTTPServer(("", port), self._handler())
        except OSError as error:
            log.warning("no metrics and no progress: port %d: %s", port, error.strerror)
            return 0
        threading.Thread(target=self._server.serve_forever, name="telemetry", daemon=True).start()
        return int(self._server.server_address[1])

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def begin(self, steps: int) -> None:
        """A training of `steps` optimiser steps in each epoch begins, or goes on where it was taken up."""
        self._watcher.begin(self._sample, self._before, steps)

    def observe(self, result: EpochResult) -> None:
        """Serves this epoch from now on, and shows it."""
        self._serve(result)
        self._watcher.epoch(result, self._sample)

    def _serve(self, result: EpochResult) -> None:
        metrics, epochs = result.metrics(), self._sample.epochs
        self._seconds += result.seconds
        epoch = self._before + result.epoch
        left = round(self._seconds / (epoch - self._skipped) * max(0, epochs - epoch))
        self._sample = ProgressSample(attempt=self._sample.attempt, epoch=epoch, epochs=epochs, eta_seconds=left, metrics=metrics)
        self._epoch.set(epoch)
        for name, series in self._losses.items():
            series.set(metrics[name])

    def advance(self, epochs: int) -> None:
        """Counts from here: trainings that came before, as trials, took `epochs` or have ended early."""
        self._skipped += epochs - self._sample.epoch
        self._before = epochs

    @property
    def seconds(self) -> float:
        """That all epochs so far have taken."""
        return self._seconds

    def take_up(self, seconds: float, last: EpochResult | None) -> None:
        """Goes on where another process was: after so many seconds, `last` being the latest epoch of the training in progress."""
        self._seconds = seconds - (last.seconds if last else 0.0)
        self._skipped = 0  # epochs of trials before are in `seconds`, as if none had ended early
        if last:
            self._serve(last)

    def progress(self) -> ProgressSample:
        return self._sample.model_copy(update={"tracking_healthy": self._healthy()})

    def metrics(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self._registry)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        routes: dict[str, tuple[str, Callable[[], bytes]]] = {
            METRICS_PATH: (CONTENT_TYPE_LATEST, self.metrics),
            PROGRESS_PATH: ("application/json", lambda: self.progress().to_json().encode()),
        }

        class Handler(BaseHTTPRequestHandler):
            timeout = 5  # seconds that a silent client may hold a thread

            def do_GET(self) -> None:
                if self.path not in routes:
                    return self.send_error(HTTPStatus.NOT_FOUND)
                kind, body = routes[self.path][0], routes[self.path][1]()
                self.send_response(HTTPStatus.OK)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
                return None

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
                """A line for each scrape would bury the epochs."""

        return Handler
