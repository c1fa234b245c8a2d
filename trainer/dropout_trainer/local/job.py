"""One job from its manifest to a verdict: train, verify, register. Each step can be cut off; run again, the job goes on after the last
one that was done."""

import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dropout_api.candidate import REPORT_JSON
from dropout_api.report import VerifyReport
from dropout_api.spec import CommandJobSpec, JobSpec, TrainingJobSpec
from dropout_api.status import Phase
from dropout_api.task import CommandTask, JobRef, RunRef, TrainTask, VerifyTask
from dropout_api.training import Checkpoint
from dropout_api.verdict import CheckResult
from dropout_trainer.errors import StageFailure
from dropout_trainer.local import stages
from dropout_trainer.local.home import Home, Key, Record
from dropout_trainer.local.runs import CLUSTER, Runs
from dropout_trainer.train.ending import Preempted, Terminated

PASSED = "Passed"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wanted:
    """A job of a manifest."""

    namespace: str
    name: str
    spec: JobSpec
    """As the manifest has it: what the verdict is bound to."""
    here: JobSpec
    """The same with paths of this machine: what the training reads."""
    environment: AbstractContextManager[None] = field(default_factory=nullcontext)
    """Of the training alone: what it says of modules must not reach the verifier."""


class Job:
    """A job in a home, which nobody else runs meanwhile. With `again` it begins anew, in a new run."""

    def __init__(self, home: Home, key: Key, wanted: Wanted, again: bool) -> None:
        self._home, self._key, self._wanted, self._runs = home, key, wanted, Runs(home)
        self.record = self._found(again)

    @property
    def ref(self) -> JobRef:
        return self._ref(self.record)

    def to_verdict(self) -> VerifyReport:
        """The verdict, which is only told where there is one. Raises StageFailure, and Terminated or Preempted."""
        if self.record.verdict is not None:
            return self.record.verdict
        spec = self._wanted.here
        source = self._runs.source(spec.source.run, self._wanted.namespace) if spec.source else None
        weights = self._runs.weights(spec.model.weights, self._wanted.namespace) if spec.model and spec.model.weights else None
        self._note(uid=self.record.uid)
        run = self._runs.ensure(self.ref, spec, source)
        with self._closing(run):
            if source is None and not self.record.trained:
                with self._wanted.environment:
                    self._train(run, weights)
            verdict = self._verify(run, source)
            passed = verdict.verdict == PASSED
            told = f"registered {verdict.model_uri}" if passed else verdict.message
            self._runs.mark(run, Phase.SUCCEEDED if passed else Phase.REJECTED, told)
        self._note(verdict=verdict)
        if spec.checkpoint is None:  # nobody has asked to keep them
            shutil.rmtree(self._home.checkpoints(self.record.uid), ignore_errors=True)
        return verdict

    def checks(self, verdict: VerifyReport) -> list[CheckResult]:
        """All that the gate has found; empty where its report was removed since."""
        from mlflow.artifacts import download_artifacts
        from mlflow.exceptions import MlflowException

        try:
            path = download_artifacts(f"{verdict.report_uri}/{REPORT_JSON}", tracking_uri=self._home.tracking_uri)
            found = json.loads(Path(path).read_bytes())["checks"]
        except (MlflowException, OSError):
            return []
        return [CheckResult.model_validate(check) for check in found]

    def _found(self, again: bool) -> Record:
        record = self._home.read(self._key)
        if record is None or again:
            return Record.new()
        if (record.attempt or record.verdict) and self._runs.find(self._ref(record), self._wanted.spec) is None:
            log.warning("the run of this job is gone from %s; it begins anew", self._home.tracking_uri)
            return Record.new()
        return record

    def _ref(self, record: Record) -> JobRef:
        return JobRef(cluster=CLUSTER, namespace=self._wanted.namespace, name=self._wanted.name, uid=record.uid)

    def _verify(self, run: RunRef, source: RunRef | None) -> VerifyReport:
        self._runs.mark(run, Phase.VERIFYING)
        try:
            return stages.verify(VerifyTask(job=self.ref, run=run, spec=self._wanted.spec, source=source))
        except Terminated as end:
            raise Preempted("before its verdict", end.number) from None

    def _train(self, run: RunRef, weights: RunRef | None) -> None:
        spec, attempt = self._wanted.here, self.record.attempt + 1
        self._note(attempt=attempt)
        self._runs.mark(run, Phase.RUNNING)
        wanted, folder = spec.checkpoint, self._checkpoints()
        told: dict[str, Any] = {"job": self.ref, "attempt": attempt, "run": run, "checkpoints": folder}
        alone = {"nodes": 1, "processes_per_node": 1}
        wire = spec.model_copy(update={"checkpoint": wanted or Checkpoint(uri=folder), **alone}).to_wire()
        if spec.command:
            stages.run_command(CommandTask(spec=CommandJobSpec.model_validate(wire), **told))
        else:
            task = TrainTask(spec=TrainingJobSpec.model_validate(wire), weights=weights, **told)
            report = stages.train(task, lambda: self._runs.client)
            log.info("%s", report.message)
        self._note(trained=True)

    def _checkpoints(self) -> str:
        """The job's folder, as a path or a URI."""
        wanted, uid = self._wanted.here.checkpoint, self.record.uid
        return f"{wanted.uri.rstrip('/')}/{uid}" if wanted and wanted.uri else str(self._home.checkpoints(uid))

    def _saved(self) -> bool:
        """Whether there is something to go on from; where a store does not answer, nothing is said of it."""
        from dropout_trainer.train.checkpoints.folder import opened
        from dropout_trainer.train.checkpoints.read import manifests

        try:
            return bool(manifests(opened(self._checkpoints())))
        except (StageFailure, OSError, ImportError):
            return False

    def _note(self, **changes: object) -> None:
        self.record = self.record.but(**changes)
        self._home.write(self._key, self.record)

    @contextmanager
    def _closing(self, run: RunRef) -> Iterator[None]:
        try:
            yield
        except Terminated as end:
            self._runs.mark(run, Phase.PENDING)
            raise Preempted(end.where, end.number) if self._saved() else end from None
        except StageFailure as failure:
            self._runs.mark(run, Phase.FAILED, f"{failure.reason}: {failure.message}")
            raise
        except Exception as error:  # a bug must not leave a run that looks as if it ran
            self._runs.mark(run, Phase.FAILED, f"Unexpected: {type(error).__name__}: {error}")
            raise
