"""The run's record: methods that never wait for MLflow, but for those that move files."""

import json
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from dropout_api.candidate import CANDIDATE_PATH
from dropout_api.names import ExitCode
from dropout_trainer.errors import StageFailure
from dropout_trainer.train.points import Points
from dropout_trainer.train.tracking.backlog import Backlog
from dropout_trainer.train.tracking.machine import Machine
from dropout_trainer.train.tracking.pipeline import Pipeline, Policy
from dropout_trainer.train.tracking.spool import Spool
from dropout_trainer.train.tracking.writes import PARAMS_PER_BATCH, Client, Params, Resume, RunTag, Text, Write, as_recorded, brief

REQUEST_SECONDS = 20
SECURING_SECONDS = 10.0
"""How long a checkpoint waits for its record to be on disk: a curve with a gap is better than none of a training that was lost."""
DEFAULT = Policy()
log = logging.getLogger(__name__)


def mlflow_client() -> Client:
    """A client for the server in the environment, which fails within seconds instead of MLflow's four minutes, and tells
    nobody else of its use unless the environment asks for that."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(REQUEST_SECONDS))
    from mlflow.tracking import MlflowClient  # slow to import; in its own thread it costs the training nothing

    return MlflowClient()


class Tracking:
    """The run's record.

    `spool` is a folder for what waits; with None all waits in memory. `lasting` says whether the next process of the run finds the
    folder. `machine` is sampled into the run. `clock` is in nanoseconds since the epoch.
    """

    def __init__(
        self, run_id: str, connect: Callable[[], Client] = mlflow_client, policy: Policy = DEFAULT, *,
        spool: Path | None = None, lasting: bool = True, machine: Machine | None = None, clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._run_id, self._connect, self._policy, self._clock = run_id, connect, policy, clock
        self._client: Client = None
        self._connecting = threading.Lock()
        self._first: list[Write] = []
        self._tables: list[dict[str, str]] = []
        backlog = Backlog((lambda: Spool(spool / run_id, policy.disk)) if spool else None, lasting)
        self._pipeline = Pipeline(run_id, self._connected, backlog, policy, (lambda: self._sample(machine)) if machine else None)

    @property
    def healthy(self) -> bool:
        """Whether MLflow took what it was sent last."""
        return self._pipeline.healthy

    @property
    def lost(self) -> int:
        """Writes that found no room to wait."""
        return self._pipeline.lost

    def start(self) -> None:
        """Begins to send, first what an earlier process of the run has left in the spool."""
        self._pipeline.start(self._first)

    def take_up(self, unsent: Sequence[Points]) -> None:
        """To be called before `start` when an earlier process has written to this run: what its checkpoint carries goes first, and
        the steps that it recorded after that checkpoint keep their points instead of getting others from being trained again.

        Steps of a metric must grow for that. Points of a user's own that stay at one step are kept from the first process alone.
        """
        self._first = [Resume(), *unsent]

    def params(self, values: Mapping[str, object]) -> None:
        """Parameters of the run, in requests of as many as MLflow takes; text beyond its limits is cut."""
        items = list(as_recorded(values).items())
        for start in range(0, len(items), PARAMS_PER_BATCH):
            self._pipeline.put(Params(dict(items[start:start + PARAMS_PER_BATCH])))

    def tag(self, name: str, value: str) -> None:
        self._pipeline.put(RunTag(name, value))

    def text(self, name: str, content: str) -> None:
        """An artifact of the run."""
        self._pipeline.put(Text(name, content))

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """A table that MLflow's pages show, in the form of mlflow.log_table (which needs pandas)."""
        self.text(name, json.dumps({"columns": list(columns), "data": [list(row) for row in rows]}))
        self._tables.append({"path": name, "type": "table"})
        self.tag("mlflow.loggedArtifacts", json.dumps(self._tables))

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Points of `step`, counted from 1. Raises TypeError or ValueError for what is no number."""
        numbers = tuple((name, float(value)) for name, value in values.items())
        self._pipeline.put(Points(int(step), self._clock() // 1_000_000, numbers))

    def unsent(self, seconds: float = SECURING_SECONDS) -> Callable[[], list[Points]]:
        """For who saves a checkpoint here: what it must carry so that a training that goes on from it lacks no point of a step before.

        Returns at once. The call of what is returned waits, `seconds` at most, until all up to here lies where the next process of
        the run finds it, on the device, and returns the points that it will not find.
        """
        barrier = self._pipeline.barrier()

        def secured() -> list[Points]:
            if not barrier.wait(seconds):
                log.warning("what waits for MLflow could not be put on disk within %.0f s; a checkpoint is saved without it", seconds)
            return barrier.unsaved

        return secured

    def drain(self, seconds: float) -> int:
        """Waits until MLflow has everything, `seconds` at most, and ends the threads; returns how many writes it does not have.

        Of these, what lies in the spool is for the next process of the run.
        """
        return self._pipeline.drain(seconds)

    def download(self, run_id: str, path: str, folder: Path) -> Path:
        """Fetches an artifact of another run of the namespace. Raises what MLflow's client raises."""
        return Path(self._connected().download_artifacts(run_id, path, str(folder)))

    def upload(
        self, files: Sequence[Path], seconds: float, folder: str = CANDIDATE_PATH, clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Uploads files to this folder of the run's artifacts in this order, trying again for `seconds` while MLflow is away.

        Raises StageFailure when they are not all there by then.
        """
        deadline, pause = clock() + seconds, self._policy.pauses[0]
        pending = deque(files)
        while pending:
            try:
                self._connected().log_artifact(self._run_id, str(pending[0]), folder)
                pending.popleft()
            except Exception as error:
                if clock() >= deadline:
                    message = f"{pending[0].name} could not be uploaded to MLflow for {seconds:.0f} s: {brief(error)}"
                    raise StageFailure("TrackingUnavailable", message, ExitCode.TRACKING_UNAVAILABLE) from None
                log.warning("MLflow takes no artifact (%s), trying again", brief(error))
                threading.Event().wait(pause)
                pause = self._policy.longer(pause)

    def _sample(self, machine: Machine) -> Points:
        """The step is the number of intervals since the epoch, so that the next process of the run counts on."""
        now = self._clock()
        return Points(int(now / 1e9 / self._policy.sample), now // 1_000_000, tuple(machine.sample().items()))

    def _connected(self) -> Client:
        with self._connecting:  # two that connect to one new SQLite file at once would both make its tables
            if self._client is None:
                self._client = self._connect()
            return self._client
