"""Turns a checked model into a registered version, exactly once, however often the verifier is cut off and run again.

Nothing here remembers anything: each step first looks, by the tags job UID and program digest, whether it was done. MLflow
knows no unique key, so two verifiers at the same moment can both create; the lowest version wins and the other is deleted.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dropout_api.candidate import PROGRAM, REPORT_PATH
from dropout_api.names import ExitCode, Tag
from dropout_trainer.errors import StageFailure
from dropout_trainer.gate.candidate import sha256
from dropout_trainer.verify.package import CODE
from dropout_trainer.verify.patience import error_code, persist

"""Tag of a copy and its version: SHA-256 of the serving code in it, which may be an earlier release's when it is found again."""


@dataclass(frozen=True)
class Order:
    """What is to be registered."""

    model: str
    """Full name of the registered model."""
    experiment: str
    """Where the verifier keeps its own copies and runs."""
    title: str
    """Name of the copy, as people see it."""
    run_id: str
    """The run that trained the model: the version's page leads to its curves."""
    tags: dict[str, str]
    """For the run, the copy and the version; holds UID, RUN_ID and DIGEST, by which they are found again."""
    description: str
    alias: str | None = None

    @property
    def filter(self) -> str:
        """The search by which our own objects are found: same job, same run, same program."""
        return " and ".join(f"tags.`{tag}` = '{self.tags[tag]}'" for tag in (Tag.UID, Tag.DIGEST, Tag.RUN_ID))


def ensure_experiment(client: Any, name: str) -> str:
    """Id of the experiment, created when it is not there."""
    def step() -> str:
        found = client.get_experiment_by_name(name)
        try:
            return str(found.experiment_id if found else client.create_experiment(name))
        except Exception as error:
            if error_code(error) != "RESOURCE_ALREADY_EXISTS":
                raise
            return str(client.get_experiment_by_name(name).experiment_id)  # another verifier was faster

    return persist(step)


def ensure_run(client: Any, experiment_id: str, order: Order) -> str:
    """Id of the verifier's own run for this candidate: it holds the report that trainers cannot write."""
    def step() -> str:
        found = client.search_runs([experiment_id], order.filter, order_by=["attributes.start_time ASC"], max_results=1)
        run = found[0] if found else client.create_run(experiment_id, tags=order.tags, run_name=order.title)
        return str(run.info.run_id)

    return persist(step)


def keep_report(client: Any, run_id: str, folder: Path, metrics: dict[str, float]) -> str:
    """Uploads the report's files and metrics to a run. Returns the folder's URI."""
    def step() -> None:
        client.log_artifacts(run_id, str(folder), REPORT_PATH)
        for name, value in metrics.items():
            client.log_metric(run_id, name, value, timestamp=0, step=0)  # the same point again is the same point
        client.set_terminated(run_id)

    persist(step)
    return f"runs:/{run_id}/{REPORT_PATH}"


def register(client: Any, experiment_id: str, own_run: str, order: Order, build: Callable[[], Path], folder: Path) -> str:
    """The version's number. `build` makes the model folder and is called only when it is needed; `folder` is for downloads.

    Raises StageFailure CopyDiffers when what MLflow gives back is not what was checked; the alias is then left alone.
    """
    ensure_model(client, order.model)
    version = find_version(client, order)
    if version is None:
        copy = ensure_copy(client, experiment_id, own_run, order, build)
        compare(client, f"models:/{copy}", code_tag() | order.tags, folder / "copy")
        version = ensure_version(client, copy, order)
    number = str(version.version)
    compare(client, f"models:/{order.model}/{number}", version.tags, folder / "version")
    if order.alias:
        move_alias(client, order.model, order.alias, number)
    return number


def ensure_model(client: Any, name: str) -> None:
    """The registered model exists."""
    def step() -> None:
        try:
            client.create_registered_model(name)
        except Exception as error:
            if error_code(error) != "RESOURCE_ALREADY_EXISTS":
                raise

    persist(step)


def find_version(client: Any, order: Order) -> Any | None:
    """Our own version of this candidate, the lowest if there are several."""
    found = persist(lambda: list(client.search_model_versions(f"name = '{order.model}' and {order.filter}")))
    return min(found, key=lambda version: int(version.version), default=None)


def ensure_copy(client: Any, experiment_id: str, own_run: str, order: Order, build: Callable[[], Path]) -> str:
    """Id of the logged model that holds our copy with this release's serving code, complete and READY."""
    code = code_tag()
    query = f"{order.filter} and tags.`{Tag.CODE_DIGEST}` = '{code[Tag.CODE_DIGEST]}'"

    def find_or_create() -> Any:
        found = client.search_logged_models([experiment_id], query)
        complete = [copy for copy in found if str(copy.status) == "READY"]
        return next(iter(complete or found), None) or client.create_logged_model(experiment_id, order.title, own_run, order.tags | code)

    copy = persist(find_or_create)
    if str(copy.status) != "READY":
        built = build()
        persist(lambda: client.log_model_artifacts(copy.model_id, str(built)))
        persist(lambda: client.finalize_logged_model(copy.model_id, "READY"))
    return str(copy.model_id)


def ensure_version(client: Any, copy: str, order: Order) -> Any:
    """The version made from the copy. Its tags come with it in one request, so no version is ever without them."""
    def step() -> Any:
        return find_version(client, order) or client.create_model_version(
            order.model, f"models:/{copy}", run_id=order.run_id, tags=order.tags | code_tag(), description=order.description, model_id=copy,
            await_creation_for=30)

    created = persist(step)
    winner = find_version(client, order) or created
    if winner.version != created.version:
        persist(lambda: client.delete_model_version(order.model, created.version))
    return winner


def code_tag() -> dict[str, str]:
    """The tag that binds a copy to the serving code of this release."""
    return {Tag.CODE_DIGEST: sha256(Path(__file__).with_name(CODE))}


def compare(client: Any, uri: str, tags: dict[str, str], folder: Path) -> None:
    """What MLflow gives back under `uri` is what was checked: program and serving code have the digests in `tags`.

    Raises StageFailure CopyDiffers when it is not.
    """
    from mlflow.artifacts import download_artifacts

    folder.mkdir()
    persist(lambda: download_artifacts(artifact_uri=uri, dst_path=str(folder), tracking_uri=client.tracking_uri))
    for path, expected in ((f"artifacts/{PROGRAM}", tags[Tag.DIGEST]), (CODE, tags[Tag.CODE_DIGEST])):
        if not (folder / path).is_file() or sha256(folder / path) != expected:
            raise StageFailure("CopyDiffers", f"{path} of {uri} is not what the gate has passed", ExitCode.TRACKING_UNAVAILABLE)


def move_alias(client: Any, model: str, alias: str, number: str) -> None:
    """Points the alias at the version, unless it points at a later one: a verifier that runs late must not take it back."""
    def step() -> None:
        aliases = client.get_registered_model(model).aliases
        if int(aliases.get(alias, 0)) < int(number):
            client.set_registered_model_alias(model, alias, number)

    persist(step)
