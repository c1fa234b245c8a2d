"""Writes to the MLflow run that the operator made, by its id, from a thread of its own.

Training hands over what it has and goes on. The thread sends it in order, an epoch's points in one request, and while
MLflow is away it waits and tries again: an outage neither slows training nor ends it nor loses a point. A write whose
answer was lost is repeated as it was, and MLflow keeps equal points (key, time, step, value) once. The run's state is
never set here: that is the operator's.
"""

import json
import logging
import os
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dropout_api.candidate import CANDIDATE_PATH
from dropout_api.names import ExitCode
from dropout_trainer.errors import StageFailure
from dropout_trainer.train.points import Points, Present

Client = Any
"""An mlflow.MlflowClient; its package has no types."""
PARAMS_PER_BATCH, PARAM_LENGTH, KEY_LENGTH = 100, 6000, 250
POINTS_PER_BATCH = 1000
MAX_WAITING = 20_000
"""Writes, an epoch each, that may wait; at one epoch a second that is an outage of five hours."""
REFUSALS = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "BAD_REQUEST")
"""Error codes after which the same request cannot succeed."""
REQUEST_SECONDS = 20
log = logging.getLogger(__name__)


Write = Points | Callable[[Client], None]


def mlflow_client() -> Client:
    """A client for the server in the environment, which fails within seconds instead of MLflow's four minutes."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(REQUEST_SECONDS))
    from mlflow.tracking import MlflowClient  # slow to import; in this thread it costs the training nothing

    return MlflowClient()


class Tracking:
    """The run's record. `pause` is the first and the longest wait in seconds between two tries."""

    def __init__(self, run_id: str, connect: Callable[[], Client] = mlflow_client, pause: tuple[float, float] = (0.5, 10.0)) -> None:
        self._run_id, self._connect, self._pause = run_id, connect, pause
        self._client: Client = None
        self._waiting: deque[Write] = deque()
        self._tables: list[dict[str, str]] = []
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._present: Present | None = None
        self._thread = threading.Thread(target=self._send_all, name="tracking", daemon=True)
        self.healthy = True
        self.lost = 0
        """Epochs that found no room to wait."""

    def start(self) -> None:
        self._thread.start()

    def take_up(self, unsent: Sequence[Points]) -> None:
        """An earlier attempt has written to this run: what it had not sent goes first, and no step is written twice."""
        self._present = Present(self._run_id)
        for points in unsent:
            self._put(points)

    def unsent(self) -> list[Points]:
        """Points that MLflow has not confirmed."""
        with self._changed:
            return [write for write in self._waiting if isinstance(write, Points)]

    def params(self, values: Mapping[str, object]) -> None:
        """Parameters of the run, in requests of as many as MLflow takes; text beyond its limits is cut."""
        items = list(as_recorded(values).items())
        for start in range(0, len(items), PARAMS_PER_BATCH):
            self._put(lambda client, batch=items[start:start + PARAMS_PER_BATCH]: _write_params(client, self._run_id, batch))  # type: ignore[misc]

    def tag(self, name: str, value: str) -> None:
        self._put(lambda client: client.set_tag(self._run_id, name, value))

    def text(self, name: str, content: str) -> None:
        """An artifact of the run."""
        self._put(lambda client: client.log_text(self._run_id, content, name))

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """A table that MLflow's pages show, in the form of mlflow.log_table (which needs pandas)."""
        self.text(name, json.dumps({"columns": list(columns), "data": [list(row) for row in rows]}))
        self._tables.append({"path": name, "type": "table"})
        self.tag("mlflow.loggedArtifacts", json.dumps(self._tables))

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Points of `step`, which is the epoch counted from 1."""
        self._put(Points(step, time.time_ns() // 1_000_000, tuple(values.items())))

    def drain(self, seconds: float) -> int:
        """Waits until everything is written, `seconds` at most, and ends the thread; returns how many writes were not."""
        if not self._thread.is_alive():
            return len(self._waiting) + self.lost
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting, timeout=seconds)
            left = len(self._waiting)
            self._waiting.clear()
            self._stop.set()
            self._changed.notify_all()
        return left + self.lost

    def download(self, run_id: str, path: str, folder: Path) -> Path:
        """Fetches an artifact of another run of the namespace. Raises what MLflow's client raises."""
        return Path(self._connected().download_artifacts(run_id, path, str(folder)))

    def upload(
        self, files: Sequence[Path], seconds: float, folder: str = CANDIDATE_PATH, clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Uploads files to this folder of the run's artifacts in this order, trying again for `seconds` while MLflow is away.

        Raises StageFailure when they are not all there by then.
        """
        deadline, pause = clock() + seconds, self._pause[0]
        pending = deque(files)
        while pending:
            try:
                self._connected().log_artifact(self._run_id, str(pending[0]), folder)
                pending.popleft()
            except Exception as error:
                if clock() >= deadline:
                    message = f"{pending[0].name} could not be uploaded to MLflow for {seconds:.0f} s: {_brief(error)}"
                    raise StageFailure("TrackingUnavailable", message, ExitCode.TRACKING_UNAVAILABLE) from None
                log.warning("MLflow takes no artifact (%s), trying again", _brief(error))
                threading.Event().wait(pause)
                pause = min(2 * pause, self._pause[1])

    def _put(self, write: Write) -> None:
        with self._changed:
            if len(self._waiting) >= MAX_WAITING:
                self.lost += 1
            else:
                self._waiting.append(write)
                self._changed.notify_all()

    def _connected(self) -> Client:
        if self._client is None:
            self._client = self._connect()
        return self._client

    def _send_all(self) -> None:
        pause = self._pause[0]
        while not self._stop.is_set():
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._stop.is_set())
                batch = _batch(self._waiting)
            if not batch:
                continue
            if self._sent(batch):
                pause = self._pause[0]
                with self._changed:
                    for _ in batch[: len(self._waiting)]:
                        self._waiting.popleft()
                    self._changed.notify_all()
            else:
                self._stop.wait(pause)
                pause = min(2 * pause, self._pause[1])

    def _sent(self, batch: Sequence[Write]) -> bool:
        """Whether there is nothing more to do for `batch`: it is written, or MLflow will never take it."""
        try:
            self._send(self._connected(), batch)
        except Exception as error:
            if getattr(error, "error_code", None) in REFUSALS:
                log.warning("MLflow refuses a record of this run: %s", _brief(error))
                return True
            if self.healthy:
                log.warning("MLflow is away (%s); training goes on and its record waits", _brief(error))
            self.healthy = False
            return False
        if not self.healthy:
            log.info("MLflow is back; %d writes have waited", len(self._waiting))
        self.healthy = True
        return True

    def _send(self, client: Client, batch: Sequence[Write]) -> None:
        if not isinstance(batch[0], Points):
            batch[0](client)
            return
        from mlflow.entities import Metric

        points = [write for write in batch if isinstance(write, Points)]
        if self._present:
            points = self._present.without(client, points)
        metrics = [Metric(key, value, item.time, item.step) for item in points for key, value in item.values]
        if metrics:
            client.log_batch(self._run_id, metrics=metrics)


def _batch(waiting: Sequence[Write]) -> list[Write]:
    """What goes into the next request: the first write, and with points all points that follow, as many as MLflow takes."""
    result: list[Write] = []
    points = 0
    for write in waiting:
        points += len(write.values) if isinstance(write, Points) else 0
        if result and (not isinstance(write, Points) or not isinstance(result[0], Points) or points > POINTS_PER_BATCH):
            break
        result.append(write)
    return result


def _write_params(client: Client, run_id: str, items: Sequence[tuple[str, str]]) -> None:
    """One changed value makes MLflow refuse a whole batch (a run keeps its first); then each goes alone."""
    from mlflow.entities import Param
    from mlflow.exceptions import MlflowException

    try:
        client.log_batch(run_id, params=[Param(*item) for item in items])
    except MlflowException as error:
        if error.error_code not in REFUSALS or len(items) == 1:
            raise
        for item in items:
            try:
                client.log_batch(run_id, params=[Param(*item)])
            except MlflowException as refusal:
                if refusal.error_code not in REFUSALS:
                    raise
                log.warning("MLflow keeps another value of %s: %s", item[0], _brief(refusal))


def as_recorded(params: Mapping[str, object]) -> dict[str, str]:
    """Parameters as MLflow will have them."""
    return {_key(name): str(value)[:PARAM_LENGTH] for name, value in params.items()}


def _key(name: str) -> str:
    return re.sub(r"[^\w\-. :/]", "_", name)[:KEY_LENGTH]


def _brief(error: Exception) -> str:
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')[:200]}"
