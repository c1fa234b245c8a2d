"""What can be wrong with a user's data: one line that names the field and the remedy, an exit code by kind."""

from dropout_api.names import ExitCode
from dropout_trainer.errors import StageFailure

MOUNT = "put it into spec.image, or mount the volume that holds it with spec.podTemplate.volumes and volumeMounts"


def invalid(field: str, what: str) -> StageFailure:
    """The data are there but cannot be trained on. `field` is an argument's name, as `uri`."""
    return StageFailure("DataInvalid", f"spec.data.args.{field}: {what}", ExitCode.DATA_INVALID)


def missing(field: str, what: str) -> StageFailure:
    """The data, or what it takes to read them, are not there."""
    return StageFailure("DataMissing", f"spec.data.args.{field}: {what}", ExitCode.DATA_MISSING)


def misspelt(field: str, what: str) -> StageFailure:
    """The argument does not go with the data."""
    return StageFailure("SpecInvalid", f"spec.data.args.{field}: {what}", ExitCode.SPEC_INVALID)


def listed(names: list[str], most: int = 20) -> str:
    """The names in one line, not all of very many."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more if names else "none"
