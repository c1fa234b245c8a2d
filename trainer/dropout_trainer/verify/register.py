"""Turns a checked model into a registered version, exactly once, however often the verifier is cut off and run again.

Nothing here remembers anything: each step first looks, by the tags job UID and program digest, whether it was done. MLflow
knows no unique key, so two verifiers at the same moment can both create; the lowest version wins and the other is deleted.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dropout_api.binding import STATEMENT
from dropout_api.candidate import REPORT_PATH
from dropout_api.names import ExitCode, Tag
from dropout_api.verdict import Outcome, Verdict, verdict_of
from dropout_trainer.errors import StageFailure
from dropout_trainer.gate.candidate import sha256
from dropout_trainer.gate.verdict import RefusedError
from dropout_trainer.verify import binding, fetch, signing
from dropout_trainer.verify.package import CODE
from dropout_trainer.verify.patience import error_code, persist

DIFFERS = "CopyDiffers"


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
    keys: tuple[bytes, ...] = ()
    """Public keys, in PEM, of which one must have signed what MLflow gives back; without any, nothing is signed."""

    @property
    def filter(self) -> str:
        """The search by which our own objects are found: same job, same run, same program."""
        return _filter(self.identity)

    @property
    def identity(self) -> dict[str, str]:
        """The tags that stay the same when another release verifies the same candidate again."""
        return {tag.value: self.tags[tag] for tag in (Tag.UID, Tag.DIGEST, Tag.RUN_ID)}


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
        copy = ensure_copy(client, experiment_id, own_run, order, build, folder / "copy")
        version = ensure_version(client, copy, order)
    number = str(version.version)
    compare(client, f"models:/{order.model}/{number}", version.tags, order, folder / "version")
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
    return version_of(client, order.model, order.identity)


def version_of(client: Any, model: str, identity: Mapping[str, str]) -> Any | None:
    """The same for the tags of `Order.identity`."""
    found = persist(lambda: list(client.search_model_versions(f"name = '{model}' and {_filter(identity)}")))
    return min(found, key=lambda version: int(version.version), default=None)


def _filter(identity: Mapping[str, str]) -> str:
    return " and ".join(f"tags.`{tag}` = '{value}'" for tag, value in identity.items())


def ensure_copy(client: Any, experiment_id: str, own_run: str, order: Order, build: Callable[[], Path], folder: Path) -> Any:
    """The logged model that holds our copy with this release's serving code: compared, tagged with its statement, and only then READY.

    One that is not READY is the ruin of an earlier attempt, and is filled anew as a whole: two builds of one model differ in
    their times, identifiers and signatures. One that cannot be mended, because it has files of another release, is given up
    as FAILED, so that the next attempt begins with another.
    """
    query = f"{order.filter} and tags.`{Tag.CODE_DIGEST}` = '{code_tag()[Tag.CODE_DIGEST]}'"

    def find_or_create() -> Any:
        found = client.search_logged_models([experiment_id], query)
        ready = [copy for copy in found if str(copy.status) == "READY" and Tag.STATEMENT_DIGEST in copy.tags]
        pending = [copy for copy in found if str(copy.status) == "PENDING"]
        return next(iter(ready or pending), None) or client.create_logged_model(
            experiment_id, order.title, own_run, order.tags | code_tag())

    copy = persist(find_or_create)
    if str(copy.status) == "READY":
        return copy
    built = build()
    tags = order.tags | code_tag() | {Tag.STATEMENT_DIGEST.value: sha256(built / STATEMENT)}
    persist(lambda: client.log_model_artifacts(copy.model_id, str(built)))
    try:
        compare(client, f"models:/{copy.model_id}", tags, order, folder)
    except StageFailure as failure:
        if failure.reason == DIFFERS:
            persist(lambda: client.finalize_logged_model(copy.model_id, "FAILED"))
        raise
    persist(lambda: client.set_logged_model_tags(copy.model_id, tags))
    return persist(lambda: client.finalize_logged_model(copy.model_id, "READY"))


def ensure_version(client: Any, copy: Any, order: Order) -> Any:
    """The version made from the copy. Its tags come with it in one request, so no version is ever without them.

    They are the copy's own: an earlier release may have made it, under another version of the gate.
    """
    tags = {name: value for name, value in copy.tags.items() if name in set(Tag)}

    def step() -> Any:
        return find_version(client, order) or client.create_model_version(
            order.model, f"models:/{copy.model_id}", run_id=order.run_id, tags=tags, description=order.description, model_id=copy.model_id,
            await_creation_for=30)

    created = persist(step)
    winner = find_version(client, order) or created
    if winner.version != created.version:
        persist(lambda: client.delete_model_version(order.model, created.version))
    return winner


def code_tag() -> dict[str, str]:
    """The tag that binds a copy to the serving code of this release."""
    return {Tag.CODE_DIGEST: sha256(Path(__file__).with_name(CODE))}


def compare(client: Any, uri: str, tags: dict[str, str], order: Order, folder: Path) -> None:
    """What MLflow gives back under `uri` is what was checked: the statement of `tags`, for this order, every file that it names and no
    other, and a signature where there is a key.

    Raises StageFailure CopyDiffers when it is not.
    """
    folder.mkdir()
    try:
        fetch.version(uri, folder, client.tracking_uri)
    except RefusedError as error:
        raise _differs(uri, error.evidence) from None
    claim = binding.Claim(order.model, order.run_id, tags | order.identity)
    checks = [*binding.check(folder, claim), signing.check(folder, order.keys)]
    if verdict_of(checks) is not Verdict.PASSED:
        raise _differs(uri, next(check.sentence for check in checks if check.outcome in (Outcome.FAILED, Outcome.COULD_NOT_RUN)))


def _differs(uri: str, what: str) -> StageFailure:
    return StageFailure(DIFFERS, f"{uri} is not what the gate has passed: {what[:600]}", ExitCode.TRACKING_UNAVAILABLE)


def move_alias(client: Any, model: str, alias: str, number: str) -> None:
    """Points the alias at the version, unless it points at a later one: a verifier that runs late must not take it back."""
    def step() -> None:
        aliases = client.get_registered_model(model).aliases
        if int(aliases.get(alias, 0)) < int(number):
            client.set_registered_model_alias(model, alias, number)

    persist(step)
