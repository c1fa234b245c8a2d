"""The folder that stands for a cluster: MLflow's database, artifacts, checkpoints, and what is known of each job.

    mlflow.db  artifacts/  checkpoints/UID/  volumes/UID/  jobs/NAMESPACE.NAME.DIGEST.json

A job is known by namespace, name and spec. So the same manifest again is the same job, and a changed one another, as in a cluster,
where a spec cannot be changed.
"""

import fcntl
import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from dropout_api.model import Wire
from dropout_api.names import ExitCode
from dropout_api.report import VerifyReport
from dropout_api.spec import MUTABLE, JobSpec
from dropout_trainer.errors import StageFailure

DIGEST_LENGTH = 16
NOT_IN_A_URI = frozenset("?%")


@dataclass(frozen=True)
class Key:
    """Which job of a home."""

    namespace: str
    name: str
    spec: str
    """Digest of the spec without what a cluster would let change in place."""

    @staticmethod
    def of(namespace: str, name: str, spec: JobSpec) -> "Key":
        fields = spec.model_dump(mode="json", exclude=set(MUTABLE))
        return Key(namespace, name, hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:DIGEST_LENGTH])

    def __str__(self) -> str:
        return f"{self.namespace}.{self.name}.{self.spec}"


class Record(Wire):
    """What is known of a job. Written before the effect that it announces, so that a process that is killed leaves nothing unknown."""

    uid: str
    attempt: int = 0
    """Trainings that were begun."""
    trained: bool = False
    """Whether the run holds a candidate."""
    verdict: VerifyReport | None = None

    @staticmethod
    def new() -> "Record":
        return Record(uid=str(uuid.uuid4()))

    def but(self, **changes: object) -> "Record":
        return self.model_copy(update=changes)


class Home:
    """Raises StageFailure when the folder cannot be made, or MLflow cannot be told of it."""

    def __init__(self, folder: str) -> None:
        self.root = Path(folder).expanduser().resolve()
        if odd := NOT_IN_A_URI & set(str(self.root)):
            message = f"--home: {self.root} holds {min(odd)!r}, which the address of an SQLite database cannot; name another folder"
            raise StageFailure("HomeInvalid", message, ExitCode.USAGE)
        try:
            self._jobs.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritable(self.root, error) from None

    @property
    def database(self) -> Path:
        return self.root / "mlflow.db"

    @property
    def tracking_uri(self) -> str:
        return uri_of(self.database)

    @property
    def artifacts(self) -> Path:
        return self.root / "artifacts"

    def checkpoints(self, uid: str) -> Path:
        return self.root / "checkpoints" / uid

    def volumes(self, uid: str) -> Path:
        return self.root / "volumes" / uid

    def read(self, key: Key) -> Record | None:
        """None when the job is new. Raises StageFailure when what is there is no record."""
        path = self._path(key)
        try:
            return Record.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError):
            raise StageFailure("HomeInvalid", f"{path} is no record of a job; remove it to begin anew", ExitCode.DATA_INVALID) from None

    def write(self, key: Key, record: Record) -> None:
        """Whole or not at all. Raises StageFailure."""
        path = self._path(key)
        unfinished = path.with_suffix(".tmp")
        try:
            with unfinished.open("w", encoding="utf-8") as file:
                file.write(record.to_json())
                file.flush()
                os.fsync(file.fileno())
            unfinished.rename(path)
        except OSError as error:
            raise _unwritable(path, error) from None

    @contextmanager
    def alone(self, key: Key) -> Iterator[None]:
        """Nobody else runs this job within the block; the lock goes with the process. Raises StageFailure when somebody does."""
        with self._path(key).with_suffix(".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                message = f"another process runs this job in {self.root}; wait for it, or give this one another --home"
                raise StageFailure("Running", message, ExitCode.PREEMPTED) from None
            yield

    @property
    def _jobs(self) -> Path:
        return self.root / "jobs"

    def _path(self, key: Key) -> Path:
        return self._jobs / f"{key}.json"


def uri_of(database: Path) -> str:
    """As MLflow takes it."""
    return f"sqlite:///{database}"


def _unwritable(path: Path, error: OSError) -> StageFailure:
    message = f"--home: {path} cannot be written: {error.strerror}; name a folder that can"
    return StageFailure("HomeUnwritable", message, ExitCode.CHECKPOINTS_UNAVAILABLE)
