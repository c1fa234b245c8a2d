"""Brings a candidate from the run's artifacts into a folder of our own: by name, within limits, and nothing else."""

from pathlib import Path
from typing import Any

from dropout_api.candidate import CANDIDATE_PATH, FILES, MANIFEST
from dropout_trainer.gate.candidate import MAX_BYTES
from dropout_trainer.gate.verdict import RefusedError
from dropout_trainer.verify.patience import persist

EXPECTED = (*FILES, MANIFEST)


def candidate(client: Any, run_id: str, folder: Path) -> None:
    """Downloads the candidate of the run to `folder`.

    Raises RefusedError when there is none, a file is missing, too large, or one of those is there that a candidate does
    not have; and what `persist` raises when MLflow is away.
    """
    sizes = {info.path.rsplit("/", 1)[-1]: info.file_size for info in persist(lambda: client.list_artifacts(run_id, CANDIDATE_PATH))}
    if not sizes:
        raise RefusedError(f"run {run_id} holds no candidate: training ended without exporting one",
                           "let the program end with dropout_trainer's exporter")
    for name in sorted(set(EXPECTED) ^ set(sizes)):
        missing = name in EXPECTED
        raise RefusedError(f"{name[:80]!r} is {'missing from' if missing else 'not part of'} the candidate",
                           "the export was cut off, or something else wrote to its folder; train again")
    for name in EXPECTED:
        if sizes[name] is None or sizes[name] > MAX_BYTES[name]:
            raise RefusedError(f"{name} has {sizes[name]} bytes; {MAX_BYTES[name]} are accepted", "export a smaller model or test set")
    for name in EXPECTED:
        persist(lambda name=name: client.download_artifacts(run_id, f"{CANDIDATE_PATH}/{name}", str(folder)))  # type: ignore[misc]
