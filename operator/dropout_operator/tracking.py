"""MLflow as the operator uses it: one run for each job, found or made, and given its final state."""

import os
from dataclasses import dataclass

import requests

from dropout_api.names import Tag, tenant_name, trainer_username
from dropout_api.spec import Weights
from dropout_api.status import RunStatus
from dropout_api.task import JobRef
from dropout_operator.actions import RunState
from dropout_operator.identities import trainer_password
from dropout_operator.mlflow_calls import REQUEST_SECONDS, Calls, pages
from dropout_operator.settings import Settings
from dropout_operator.world import SourceRun

THREADS = 4
MAX_TAG = 5000
ACTIVE = ("RUNNING", "SCHEDULED")
UNSEEN = ("RESOURCE_DOES_NOT_EXIST", "PERMISSION_DENIED")
"""Another namespace's run may be refused instead of shown; whoever names it must not learn which."""


@dataclass(frozen=True)
class ActiveRun:
    """A run of this cluster that has no final state yet."""

    id: str
    job_uid: str


class Tracking:
    """Finds, makes and closes runs. Safe to call for different jobs at once; each call may be repeated."""

    def __init__(self, settings: Settings, cluster: str) -> None:
        self._call = Calls(settings.mlflow_uri, THREADS)
        self._client = self._call.client
        self._settings = settings
        self._cluster = cluster
        self._experiments: dict[str, str] = {}
        self._granted: set[tuple[str, str]] = set()

    async def ensure_run(self, job: JobRef, experiment: str, source: str | None = None) -> RunStatus:
        """The job's run: the oldest that carries its UID, a new one where there is none. Others are closed.

        `source` is the id of the run whose candidate the job verifies again.
        """
        return await self._call(self._ensure_run, job, experiment, source)

    async def find_source(self, run_id: str) -> SourceRun:
        """What MLflow knows of a run; without an experiment where there is no such run, it was deleted, or it may not be seen."""
        return await self._call(self._find_source, run_id)

    async def find_weights(self, weights: Weights, namespace: str) -> SourceRun:
        """The same of the run that has these weights: the one that is named, or that of the namespace's registered version."""
        return await self._call(self._find_weights, weights, namespace)

    async def set_state(self, run_id: str, state: RunState) -> None:
        await self._call(self._client.update_run, run_id, state)

    async def end_run(self, run_id: str, state: str, phase: str, message: str) -> None:
        """Gives the run its final state and end time."""
        await self._call(self._end_run, run_id, state, phase, message)

    async def active_runs(self) -> list[ActiveRun]:
        return await self._call(self._active_runs)

    def _find_weights(self, weights: Weights, namespace: str) -> SourceRun:
        run_id = weights.run if weights.model is None else self._run_of(tenant_name(namespace, weights.model), weights)
        return self._find_source(run_id) if run_id else SourceRun("")

    def _run_of(self, model: str, weights: Weights) -> str | None:
        """The run of a registered version, None where there is no such version."""
        from mlflow.exceptions import MlflowException

        try:
            if weights.alias is not None:
                return self._client.get_model_version_by_alias(model, weights.alias).run_id or None
            return self._client.get_model_version(model, str(weights.version)).run_id or None
        except MlflowException as error:
            if error.error_code in (*UNSEEN, "INVALID_PARAMETER_VALUE"):  # MLflow's word for an alias that nothing has
                return None
            raise

    def _find_source(self, run_id: str) -> SourceRun:
        from mlflow.exceptions import MlflowException

        try:
            run = self._client.get_run(run_id)
            experiment = self._client.get_experiment(run.info.experiment_id)
        except MlflowException as error:
            if error.error_code in UNSEEN:
                return SourceRun(run_id)
            raise
        if "deleted" in (run.info.lifecycle_stage, experiment.lifecycle_stage):
            return SourceRun(run_id)
        return SourceRun(
            id=run_id, experiment_id=experiment.experiment_id, experiment=experiment.name, namespace=run.data.tags.get(Tag.NAMESPACE, ""),
            active=run.info.status in ACTIVE, verified=run.data.tags.get(Tag.FROM_RUN, ""),
        )

    def _ensure_run(self, job: JobRef, experiment: str, source: str | None) -> RunStatus:
        try:
            return self._find_or_create_run(job, experiment, source)
        except Exception:
            self._experiments.pop(experiment, None)  # it may have been deleted under us
            raise

    def _find_or_create_run(self, job: JobRef, experiment: str, source: str | None) -> RunStatus:
        experiment_id = self._ensure_experiment(experiment, job.namespace)
        runs = self._client.search_runs([experiment_id], f"tags.`{Tag.UID}` = '{job.uid}'", order_by=["attributes.start_time ASC"])
        for duplicate in runs[1:]:
            self._client.set_terminated(duplicate.info.run_id, "KILLED")
        run_id = runs[0].info.run_id if runs else self._create_run(job, experiment_id, source)
        return RunStatus(id=run_id, experiment_id=experiment_id, url=self._page(experiment_id, run_id))

    def _page(self, experiment_id: str, run_id: str) -> str:
        """The run's page. A server with workspaces shows its list of workspaces to a link that names none."""
        workspace = "?workspace=default&workflowType=machine_learning" if self._settings.mlflow_auth else ""
        return f"{self._settings.mlflow_public_url}/#/experiments/{experiment_id}/runs/{run_id}{workspace}"

    def _create_run(self, job: JobRef, experiment_id: str, source: str | None) -> str:
        tags = {
            Tag.CLUSTER: job.cluster, Tag.UID: job.uid, Tag.NAMESPACE: job.namespace, Tag.NAME: job.name,
            "mlflow.source.name": f"dropouttrainingjob/{job.name} -n {job.namespace}", "mlflow.source.type": "JOB",
        } | ({Tag.FROM_RUN: source} if source else {})
        run = self._client.create_run(experiment_id, tags={str(key): value for key, value in tags.items()}, run_name=job.name)
        self._client.update_run(run.info.run_id, "SCHEDULED")
        return str(run.info.run_id)

    def _ensure_experiment(self, name: str, namespace: str) -> str:
        if name not in self._experiments:
            self._experiments[name] = self._find_or_create_experiment(name)
        experiment_id = self._experiments[name]
        if self._settings.mlflow_auth and (namespace, experiment_id) not in self._granted:
            self._grant(namespace, experiment_id)
            self._granted.add((namespace, experiment_id))
        return experiment_id

    def _find_or_create_experiment(self, name: str) -> str:
        from mlflow.exceptions import MlflowException

        found = self._client.get_experiment_by_name(name)
        if found is None:
            try:
                return str(self._client.create_experiment(name, tags={str(Tag.CLUSTER): self._cluster}))
            except MlflowException as error:  # someone was faster
                if error.error_code != "RESOURCE_ALREADY_EXISTS" or (found := self._client.get_experiment_by_name(name)) is None:
                    raise
        if found.lifecycle_stage == "deleted":
            self._client.restore_experiment(found.experiment_id)
        if found.tags.get(Tag.CLUSTER) != self._cluster:
            self._client.set_experiment_tag(found.experiment_id, str(Tag.CLUSTER), self._cluster)
        return str(found.experiment_id)

    def _grant(self, namespace: str, experiment_id: str) -> None:
        """Makes the namespace's trainer user, and lets it write this experiment and nothing else."""
        user, password = trainer_username(namespace), trainer_password(self._settings.trainer_key, namespace)
        self._post("2.0/mlflow/users/create", {"username": user, "password": password})
        grant = {"username": user, "resource_type": "experiment", "resource_id": experiment_id, "permission": "EDIT"}
        self._post("3.0/mlflow/users/permissions/grant", grant)

    def _post(self, path: str, body: dict[str, str]) -> None:
        login = (os.environ.get("MLFLOW_TRACKING_USERNAME", ""), os.environ.get("MLFLOW_TRACKING_PASSWORD", ""))
        answer = requests.post(f"{self._settings.mlflow_uri}/api/{path}", json=body, auth=login, timeout=float(REQUEST_SECONDS))
        if answer.status_code >= 400 and "RESOURCE_ALREADY_EXISTS" not in answer.text:
            raise requests.HTTPError(f"MLflow refused {path}: {answer.status_code} {answer.text[:200]}")

    def _end_run(self, run_id: str, state: str, phase: str, message: str) -> None:
        self._client.set_tag(run_id, str(Tag.PHASE), phase)
        self._client.set_tag(run_id, str(Tag.MESSAGE), message[:MAX_TAG])
        self._client.set_tag(run_id, "mlflow.note.content", f"**{phase}**: {message[:MAX_TAG]}")
        self._client.set_terminated(run_id, state)

    def _active_runs(self) -> list[ActiveRun]:
        mine = f"tags.`{Tag.CLUSTER}` = '{self._cluster}'"
        experiments = [experiment.experiment_id for experiment in pages(self._client.search_experiments, filter_string=mine)]
        active = []
        for state in ACTIVE if experiments else ():
            runs = pages(self._client.search_runs, experiments, filter_string=f"{mine} AND attributes.status = '{state}'")
            active += [ActiveRun(run.info.run_id, run.data.tags[Tag.UID]) for run in runs if Tag.UID in run.data.tags]
        return active
