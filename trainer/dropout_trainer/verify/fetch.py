"""Brings files from MLflow into a folder of our own, within limits: a candidate by name, a model version whole."""

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from dropout_api.binding import SIGNATURE, STATEMENT
from dropout_api.candidate import CANDIDATE_PATH, FILES, MANIFEST
from dropout_trainer.gate.candidate import MAX_BYTES, check_names
from dropout_trainer.gate.verdict import RefusedError
from dropout_trainer.verify.patience import PATIENCE_SECONDS, error_code, persist

MAX_ENTRIES = 10_000
"""Files and folders of a model version."""
MAX_BINDING_BYTES = 4 << 20
"""Of a statement, or a signature."""
ODD = "no model that was logged in the usual way has this; do not serve the version"
UNKNOWN = frozenset(("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND"))
"""MLflow's words for what it does not have."""


def candidate(client: Any, run_id: str, folder: Path, names: Sequence[str] = FILES) -> None:
    """Downloads the candidate of the run to `folder`: `names` and the manifest.

    Raises RefusedError when there is none, a file is missing, too large, or another than those is there; and what `persist`
    raises when MLflow is away.
    """
    expected = (*names, MANIFEST)
    sizes = {info.path.rsplit("/", 1)[-1]: info.file_size for info in persist(lambda: client.list_artifacts(run_id, CANDIDATE_PATH))}
    if not sizes:
        raise RefusedError(f"run {run_id} holds no candidate: training ended without exporting one",
                           "let the program end with dropout_trainer's exporter")
    check_names(sizes, expected)
    for name in expected:
        if sizes[name] is None or sizes[name] > MAX_BYTES[name]:
            raise RefusedError(f"{name} has {sizes[name]} bytes; {MAX_BYTES[name]} are accepted", "export a smaller model or test set")
    for name in expected:
        persist(lambda name=name: client.download_artifacts(run_id, f"{CANDIDATE_PATH}/{name}", str(folder)))  # type: ignore[misc]


def version(uri: str, folder: Path, tracking_uri: str, limit: float = float("inf"), patience: float = PATIENCE_SECONDS) -> list[str]:
    """Downloads the files of `uri`, as `models:/NAME/7` or `models:/m-…`, to `folder`, small ones first.

    Returns the paths that it left out because all together would have more than `limit` bytes. Statement and signature do not
    count, because without them there is nothing to say; they are left out when they are too large to be what they are called.
    Raises RefusedError for a listing that no model has or that does not hold, and what `persist` raises.
    """
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    def listed() -> tuple[Any, dict[str, int]]:
        repository = get_artifact_repository(uri, tracking_uri=tracking_uri)
        return repository, dict(_listing(repository))

    repository, sizes = persist(listed, patience)
    left_out = []
    for name, size in sorted(sizes.items(), key=lambda item: item[1]):
        if size > (MAX_BINDING_BYTES if name in (STATEMENT, SIGNATURE) else limit):
            left_out.append(name)
            continue
        if name not in (STATEMENT, SIGNATURE):
            limit -= size
        try:
            persist(lambda name=name: repository.download_artifacts(name, str(folder)), patience)  # type: ignore[misc]
        except Exception as error:
            if error_code(error) not in UNKNOWN:
                raise
            raise RefusedError(f"MLflow lists a file {name[:160]!r} and does not give it", ODD) from error
    return left_out


def _listing(repository: Any) -> Iterator[tuple[str, int]]:
    """Path and size in bytes of every file; the server's word, so it is bounded and may not lead out of the folder."""
    folders: list[str | None] = [None]
    seen = 0
    while folders:
        for info in repository.list_artifacts(folders.pop()):
            seen += 1
            if seen > MAX_ENTRIES or not _stays_inside(info.path):
                what = f"more than {MAX_ENTRIES} files" if seen > MAX_ENTRIES else f"a file {info.path[:160]!r}"
                raise RefusedError(f"MLflow lists {what}", ODD)
            if info.is_dir:
                folders.append(info.path)
            else:
                yield info.path, int(info.file_size or 0)


def _stays_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and "\\" not in name and "\0" not in name
