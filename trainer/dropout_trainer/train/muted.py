"""The record of a run on ranks above 0: rank 0 tells it all."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from dropout_trainer.train.tracking import Tracking


class Muted(Tracking):
    """Takes what it is told, and nothing becomes of it: no thread, no connection, no file."""

    healthy = True
    lost = 0

    def __init__(self) -> None:
        """Has none of a Tracking's parts."""

    def metrics(self, values: Mapping[str, float], step: int) -> None: ...

    def drain(self, seconds: float) -> int:
        return 0

    def upload(self, files: Sequence[Path], *_: object) -> None: ...
