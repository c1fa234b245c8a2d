"""Points of a run's metrics, and which of them the run has already."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Points:
    """Metrics of one step; `time` in milliseconds since the epoch is fixed once, so that a repeated write is the same write."""

    step: int
    time: int
    values: tuple[tuple[str, float], ...]


class Present:
    """The steps that a run had of each metric when it was first asked about it.

    A training that was cut off repeats the epochs after its checkpoint. MLflow keeps equal points once, but these have other times.
    """

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._steps: dict[str, set[int]] = {}

    def without(self, client: Any, points: Sequence[Points]) -> list[Points]:
        """`points` less those that the run has. Raises what MLflow's client raises."""
        left = []
        for item in points:
            values = tuple((key, value) for key, value in item.values if item.step not in self._of(client, key))
            if values:
                left.append(replace(item, values=values))
        return left

    def _of(self, client: Any, key: str) -> set[int]:
        if key not in self._steps:
            self._steps[key] = {point.step for point in client.get_metric_history(self._run_id, key)}
        return self._steps[key]
