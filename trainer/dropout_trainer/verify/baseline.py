"""Finds the registered versions that quality bars hold a candidate against: once, before it is judged.

An alias may move while a candidate is judged; all bars that name it are then held against the version that was found here.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dropout_api.candidate import PROGRAM
from dropout_api.names import ExitCode, Tag
from dropout_api.task import VerifyTask
from dropout_api.verdict import Outcome, Verdict, verdict_of
from dropout_trainer.errors import StageFailure
from dropout_trainer.gate.baseline import Baseline
from dropout_trainer.gate.candidate import MAX_BYTES, sha256
from dropout_trainer.verify import binding, register, target
from dropout_trainer.verify.patience import PATIENCE_SECONDS
from dropout_trainer.verify.target import Version

MAX_VERSION_BYTES = MAX_BYTES[PROGRAM]
"""Of a version's files together; one that is larger cannot be checked as a whole, and so is not compared with."""


def find(client: Any, task: VerifyTask, candidate: Path, public: Sequence[bytes], folder: Path) -> dict[str, Baseline]:
    """By the alias that the bars of `task` name. Versions are downloaded to `folder`, which is made.

    A candidate that is registered already, by an attempt that was cut off afterwards, has been judged: its alias may by now point to
    itself, or to a later version that it was never meant to beat. Raises StageFailure when MLflow is away or refuses.
    """
    aliases = sorted({bar.baseline for bar in task.spec.gate if bar.baseline is not None})
    if not aliases:
        return {}
    identity = {Tag.UID.value: task.job.uid, Tag.DIGEST.value: sha256(candidate / PROGRAM), Tag.RUN_ID.value: task.run.id}
    own = target.asked(task.model_name, lambda: register.version_of(client, task.model_name, identity), PATIENCE_SECONDS)
    if own:
        return dict.fromkeys(aliases, Baseline(skipped=f"this candidate met it when it became {Version.of(own).uri}"))
    pointed = _pointed(client, task.model_name)
    found = {number: _baseline(client, task.model_name, number, tuple(public), folder / number)
             for number in {pointed[alias] for alias in aliases if alias in pointed}}
    missing = Baseline(skipped="no version has that alias")
    return {alias: found[pointed[alias]] if alias in pointed else missing for alias in aliases}


def _pointed(client: Any, model: str) -> dict[str, str]:
    """Alias → version number; empty before the model's first version.

    The model is searched for and not asked for: of one that does not exist yet a server with passwords says "permission denied", and a
    server without them "no such model".
    """
    named = f"name = '{model}'"  # the names that a spec may have hold no quote
    found = target.asked(model, lambda: client.search_registered_models(filter_string=named, max_results=1), PATIENCE_SECONDS)
    return {alias: str(number) for item in found for alias, number in item.aliases.items()}


def _baseline(client: Any, model: str, number: str, public: tuple[bytes, ...], folder: Path) -> Baseline:
    """The version, once its files, tags and signature are those of its statement, and nobody has quarantined it."""
    uri = f"models:/{model}/{number}"
    try:
        version = Version.of(target.asked(uri, lambda: client.get_model_version(model, number), PATIENCE_SECONDS))
        folder.mkdir(parents=True)
        checks, _ = target.check(client, version, folder, public, MAX_VERSION_BYTES, PATIENCE_SECONDS)
    except StageFailure as failure:
        if failure.reason != target.INVALID:
            raise
        message = f"{uri} was deleted while a candidate was to be held against it: {failure.message}"
        raise StageFailure("BaselineGone", message, ExitCode.TRACKING_UNAVAILABLE) from None
    if verdict_of(checks) is not Verdict.PASSED:
        bad = next(check for check in checks if check.outcome in (Outcome.FAILED, Outcome.COULD_NOT_RUN))
        return Baseline(uri, refused=f"{uri} is nothing to be held against: {bad.name}: {bad.evidence[:400]}")
    statement = binding.read(folder)
    names = [name for name, digest in statement.files.items() if digest == statement.program_sha256]
    return Baseline(uri, folder / names[0])
