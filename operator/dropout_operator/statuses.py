"""Status as a value that changes by making a new one."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from dropout_api.names import Condition
from dropout_api.report import ProgressSample
from dropout_api.status import Attempt, ConditionStatus, JobStatus, Progress
from dropout_operator.world import World


def with_condition(world: World, status: JobStatus, kind: Condition, value: bool, reason: str, message: str) -> JobStatus:
    """`status` with one condition set; the transition time moves only when the value flips."""
    old = next((item for item in status.conditions if item.type == kind), None)
    word = "True" if value else "False"
    since = old.last_transition_time if old is not None and old.status == word else world.now
    new = ConditionStatus(
        type=kind, status=word, reason=reason, message=message[:4096], last_transition_time=since,
        observed_generation=world.job.generation,
    )
    others = [item for item in status.conditions if item.type != kind]
    return update(status, conditions=sorted([*others, new], key=lambda item: item.type))


def holds(status: JobStatus, kind: Condition) -> bool:
    return any(item.type == kind and item.status == "True" for item in status.conditions)


def denied(status: JobStatus, kind: Condition) -> str | None:
    """Why a condition does not hold; None where it holds or nothing is known."""
    return next((item.message for item in status.conditions if item.type == kind and item.status == "False"), None)


def update(status: JobStatus, **changes: Any) -> JobStatus:
    return status.model_copy(update=changes)


def with_attempt(status: JobStatus, **changes: Any) -> JobStatus:
    """`status` with its latest attempt changed."""
    *before, last = status.attempts
    return update(status, attempts=[*before, last.model_copy(update=changes)])


def begin_attempt(status: JobStatus, number: int, job: str) -> JobStatus:
    return update(status, attempts=[*status.attempts, Attempt(number=number, job=job)], restarts=number - 1)


def progress_of(sample: ProgressSample, now: datetime) -> Progress:
    return Progress(
        epoch=sample.epoch, epochs=sample.epochs, percent=percent(sample.epoch, sample.epochs), eta_seconds=sample.eta_seconds,
        metrics=readable(sample.metrics), update_time=now,
    )


def readable(metrics: Mapping[str, float]) -> dict[str, float]:
    """Metrics to six significant digits: status is for people and dashboards, the exact values are in MLflow."""
    return {name: float(f"{value:.6g}") for name, value in metrics.items()}


def percent(epoch: int, epochs: int) -> int:
    return min(100, 100 * epoch // epochs) if epochs else 0


def worth_writing(old: Progress | None, new: Progress) -> bool:
    """Whether progress moved by five percent, or moved at all and ten seconds went by."""
    if old is None or old.update_time is None or new.update_time is None or new.epoch < old.epoch:
        return True
    seconds = (new.update_time - old.update_time).total_seconds()
    moved = new.model_copy(update={"update_time": old.update_time}) != old
    return moved and (new.percent - old.percent >= 5 or seconds >= 10)


def same(old: JobStatus, new: JobStatus) -> bool:
    return old.to_wire() == new.to_wire()

