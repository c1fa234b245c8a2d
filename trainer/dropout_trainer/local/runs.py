"""MLflow as the operator would use it: one run for each job, found or made, given its states, and looked up where a spec names one."""

import contextlib
import os
from pathlib import Path
from typing import Any

from dropout_api.names import ExitCode, Tag, is_tenants, tenant_name, verified_experiment
from dropout_api.spec import JobSpec, Weights
from dropout_api.status import Phase
from dropout_api.task import JobRef, RunRef, experiment_name
from dropout_trainer.errors import StageFailure
from dropout_trainer.local.home import Home, uri_of
from dropout_trainer.verify.patience import error_code

CLUSTER = "local"
MAX_TAG = 5000
STATES = {Phase.PENDING: "SCHEDULED", Phase.RUNNING: "RUNNING", Phase.VERIFYING: "RUNNING", Phase.SUCCEEDED: "FINISHED",
          Phase.REJECTED: "FAILED", Phase.FAILED: "FAILED"}
"""Of an MLflow run, by the phase of its job. One that was interrupted is Pending, so nothing looks as if it ran."""
FINAL = ("FINISHED", "FAILED", "KILLED")


class Runs:
    """Of one home. Raises StageFailure when its database cannot be opened."""

    def __init__(self, home: Home) -> None:
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient  # slow to import

        self._home = home
        try:
            _make(home.database)
            self.client: Any = MlflowClient(home.tracking_uri, home.tracking_uri)
            self.client.search_experiments(max_results=1)
        except MlflowException as error:
            told = " ".join(str(error).split())[:300]
            message = f"{home.tracking_uri} cannot be used: {told}; `mlflow db upgrade {home.tracking_uri}` mends one of an older MLflow"
            raise StageFailure("TrackingUnavailable", message, ExitCode.TRACKING_UNAVAILABLE) from None

    def find(self, job: JobRef, spec: JobSpec) -> RunRef | None:
        """The job's run."""
        experiment = self.client.get_experiment_by_name(experiment_name(job, spec))
        if experiment is None:
            return None
        own = f"tags.`{Tag.UID}` = '{job.uid}'"
        found = self.client.search_runs([experiment.experiment_id], own, order_by=["attributes.start_time ASC"])
        return RunRef(id=found[0].info.run_id, experiment_id=experiment.experiment_id) if found else None

    def ensure(self, job: JobRef, spec: JobSpec, source: RunRef | None) -> RunRef:
        """The job's run, made where there is none; `source` is the run whose candidate it verifies again."""
        experiment = self._experiment(experiment_name(job, spec))
        self._experiment(verified_experiment(job.namespace))  # MLflow would put its artifacts into the current folder
        if (found := self.find(job, spec)) is not None:
            return found
        tags = {
            Tag.CLUSTER: job.cluster, Tag.UID: job.uid, Tag.NAMESPACE: job.namespace, Tag.NAME: job.name,
            "mlflow.source.name": f"dropout run {job.name}", "mlflow.source.type": "JOB",
        } | ({Tag.FROM_RUN: source.id} if source else {})
        run = self.client.create_run(experiment, tags={str(key): value for key, value in tags.items()}, run_name=job.name)
        return RunRef(id=run.info.run_id, experiment_id=experiment)

    def mark(self, run: RunRef, phase: Phase, message: str = "") -> None:
        """Gives the run the state of its job's phase; with a message where that is an end."""
        state = STATES[phase]
        if state not in FINAL:
            self.client.update_run(run.id, state)
            return
        self.client.set_tag(run.id, Tag.PHASE.value, phase.value)
        self.client.set_tag(run.id, Tag.MESSAGE.value, message[:MAX_TAG])
        self.client.set_tag(run.id, "mlflow.note.content", f"**{phase}**: {message[:MAX_TAG]}")
        self.client.set_terminated(run.id, state)

    def source(self, run_id: str, namespace: str) -> RunRef:
        """The run of `spec.from`. Raises StageFailure when no job of the namespace has made it here, or it has no candidate yet."""
        return self._candidate(run_id, namespace, "spec.from.run")

    def weights(self, wanted: Weights, namespace: str) -> RunRef | None:
        """The run that has the weights of `spec.model.weights`; None where that names a file. Raises StageFailure."""
        if wanted.run is not None:
            return self._candidate(wanted.run, namespace, "spec.model.weights.run")
        if wanted.model is None:
            return None
        return self._candidate(self._run_of(wanted, namespace), namespace, "spec.model.weights.model")

    def _run_of(self, wanted: Weights, namespace: str) -> str:
        from mlflow.exceptions import MlflowException

        assert wanted.model is not None
        model = tenant_name(namespace, wanted.model)
        try:
            version = (self.client.get_model_version_by_alias(model, wanted.alias) if wanted.alias
                       else self.client.get_model_version(model, str(wanted.version)))
        except MlflowException as error:
            if error_code(error) not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise
            which = f"alias {wanted.alias}" if wanted.alias else f"version {wanted.version}"
            raise self._missing(f"spec.model.weights.model: there is no model '{model}' with {which}") from None
        return str(version.run_id)

    def _candidate(self, run_id: str, namespace: str, field: str) -> RunRef:
        """The operator's rules (`planning.candidates`), for a registry in which everything is one user's."""
        from mlflow.exceptions import MlflowException

        try:
            run = self.client.get_run(run_id)
        except MlflowException as error:
            if error_code(error) != "RESOURCE_DOES_NOT_EXIST":
                raise
            raise self._missing(f"{field}: there is no run {run_id}") from None
        experiment = self.client.get_experiment(run.info.experiment_id)
        if not is_tenants(namespace, experiment.name):
            raise self._missing(f"{field}: run {run_id} is of no job of namespace {namespace}")
        if verified := run.data.tags.get(Tag.FROM_RUN):
            message = f"{field}: run {run_id} has no candidate, it verified that of run {verified}; name that"
            raise StageFailure("RunTrainedNothing", message, ExitCode.SPEC_INVALID)
        if run.info.status not in FINAL:
            message = f"{field}: run {run_id} has not ended; run its manifest to the end first"
            raise StageFailure("RunNotEnded", message, ExitCode.SPEC_INVALID)
        return RunRef(id=run_id, experiment_id=experiment.experiment_id)

    def _missing(self, what: str) -> StageFailure:
        message = f"{what} in {self._home.root}; `dropout run` knows nothing of a cluster's MLflow"
        return StageFailure("RunNotFound", message, ExitCode.DATA_MISSING)

    def _experiment(self, name: str) -> str:
        found = self.client.get_experiment_by_name(name)
        if found is None:
            place: Path = self._home.artifacts / name
            return str(self.client.create_experiment(name, place.as_uri(), {Tag.CLUSTER.value: CLUSTER}))
        if found.lifecycle_stage == "deleted":
            self.client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)


def _make(database: Path) -> None:
    """Makes an empty one where there is none: whole or not at all, because MLflow takes seconds and does not mend what was cut off."""
    from mlflow.tracking import MlflowClient

    if database.exists():
        return
    unfinished = database.with_name(f"{database.name}.{os.getpid()}")
    unfinished.unlink(missing_ok=True)
    try:
        MlflowClient(uri_of(unfinished), uri_of(unfinished)).search_experiments(max_results=1)
        with contextlib.suppress(FileExistsError):  # another process was faster
            os.link(unfinished, database)
    finally:
        unfinished.unlink(missing_ok=True)
