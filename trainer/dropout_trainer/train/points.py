"""Points of a run's metrics."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Points:
    """Metrics of one step; `time` in milliseconds since the epoch is fixed once, so that a repeated write is the same write."""

    step: int
    time: int
    values: tuple[tuple[str, float], ...]
