"""`dropout verify TARGET`: holds a registered version, or a folder, against its statement and signature. Changes nothing."""

import json
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dropout_api.names import Env, ExitCode, Tag
from dropout_api.verdict import CheckResult, verdict_of
from dropout_trainer.errors import StageFailure
from dropout_trainer.gate.verdict import RefusedError, failed
from dropout_trainer.verify import binding, fetch, signing, terminal
from dropout_trainer.verify.patience import configure, error_code, persist

PATIENCE_SECONDS = 15.0
"""A person waits at the terminal; a pod has more (see patience.py)."""
INVALID = "TargetInvalid"
"""Reason of the StageFailure for what MLflow does not have."""
REGISTERED = re.compile(r"models:/(?P<name>[^/@:]+)(/(?P<version>[1-9]\d*)|@(?P<alias>[^/@:]+))")


@dataclass(frozen=True)
class Version:
    """A registered version, as the registry tells of it."""

    name: str
    number: str
    run_id: str
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def uri(self) -> str:
        return f"models:/{self.name}/{self.number}"

    @property
    def claim(self) -> binding.Claim:
        return binding.Claim(self.name, self.run_id, self.tags)

    @classmethod
    def of(cls, found: Any) -> "Version":
        """From MLflow's own object."""
        return cls(found.name, str(found.version), found.run_id or "", dict(found.tags))


def main(target: str, key: str | None, as_json: bool) -> int:
    """Prints what was found. Returns an `ExitCode`: OK, REJECTED, UNDECIDED, USAGE or TRACKING_UNAVAILABLE."""
    configure()
    try:
        public = public_keys(key)
        name, checks = inspect(target, public)
    except StageFailure as failure:
        terminal.complain(failure)
        return failure.exit_code
    verdict = verdict_of(checks)
    if as_json:
        print(json.dumps({"target": name, "verdict": verdict, "checks": [check.to_wire() for check in checks]}, indent=1))
    else:
        terminal.console().print(terminal.checks(name, verdict, checks))
    return terminal.exit_code(verdict)


def public_keys(key: str | None) -> tuple[bytes, ...]:
    """Of the file `key`, else of the one that the environment names, else none. Raises StageFailure SigningKeyInvalid."""
    return signing.public_keys(Path(key)) if key else signing.of_environment().public


def inspect(target: str, public: tuple[bytes, ...]) -> tuple[str, list[CheckResult]]:
    """The target's full name and what was found. Raises StageFailure for a target that is none, and when MLflow is away."""
    if not target.startswith("models:"):
        folder = Path(target)
        if not folder.is_dir():
            raise _invalid(target, "is neither models:/NAME/VERSION, models:/NAME@ALIAS nor a folder")
        return str(folder), [*binding.check(folder), signing.check(folder, public)]
    client = connect()
    version = find(client, target)
    with tempfile.TemporaryDirectory(prefix="verify-") as folder_name:
        return version.uri, check(client, version, Path(folder_name), public)[0]


def check(
    client: Any, version: Version, folder: Path, public: tuple[bytes, ...], limit: float = float("inf"), patience: float = PATIENCE_SECONDS,
) -> tuple[list[CheckResult], list[str]]:
    """Downloads the version to `folder` and checks it; also the paths that were left out, because they exceed `limit` bytes."""
    try:
        left_out = asked(version.uri, lambda: fetch.version(version.uri, folder, client.tracking_uri, limit, patience), patience)
    except RefusedError as error:
        return [failed("files", error.evidence, error.remedy)], []
    found = [*binding.check(folder, version.claim, left_out), signing.check(folder, public, complete=not left_out)]
    reason = version.tags.get(Tag.QUARANTINED)
    if reason:
        remedy = f"when its cause is gone, delete the tag {Tag.QUARANTINED} of the version"
        found.append(failed("quarantine", f"it was quarantined: {reason}", remedy))
    return found, left_out


def find(client: Any, target: str) -> Version:
    """The version that the URI names. Raises StageFailure TargetInvalid for a URI of another form, or of no version."""
    match = REGISTERED.fullmatch(target)
    if not match:
        raise _invalid(target, "is neither models:/NAME/VERSION nor models:/NAME@ALIAS")
    name, number, alias = match["name"], match["version"], match["alias"]

    def step() -> Any:
        return client.get_model_version(name, number) if number else client.get_model_version_by_alias(name, alias)

    return Version.of(asked(target, step))


def asked(what: str, step: Any, patience: float = PATIENCE_SECONDS) -> Any:
    """What MLflow answers. Raises StageFailure TargetInvalid when it knows no such thing, TrackingRefused or TrackingUnavailable."""
    try:
        return persist(step, patience)
    except (StageFailure, RefusedError):
        raise
    except Exception as error:
        code, text = error_code(error), " ".join(str(error).split())[:300]
        if code in fetch.UNKNOWN:
            raise _invalid(what, f"is unknown to MLflow: {text}") from None
        if code or hasattr(error, "response"):
            raise StageFailure("TrackingRefused", f"MLflow refused {what} ({code or type(error).__name__}): {text}",
                               ExitCode.TRACKING_UNAVAILABLE) from None
        raise


def connect() -> Any:
    """MLflow's client for the server that the environment names. Raises StageFailure TrackingUnset when it names none."""
    if not os.environ.get(Env.TRACKING_URI):
        raise StageFailure("TrackingUnset", f"{Env.TRACKING_URI} is not set: it says which MLflow to ask", ExitCode.USAGE)
    from mlflow import MlflowClient

    return MlflowClient()


def _invalid(target: str, why: str) -> StageFailure:
    return StageFailure(INVALID, f"{target} {why}", ExitCode.USAGE)
