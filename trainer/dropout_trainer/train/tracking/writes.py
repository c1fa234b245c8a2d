"""What can be written to a run: as values, as lines of a file, and as MLflow's requests."""

import json
import logging
import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from dropout_trainer.train.points import Points

Client = Any
"""An mlflow.MlflowClient; its package has no types."""
PARAMS_PER_BATCH, PARAM_LENGTH, KEY_LENGTH = 100, 6000, 250
POINTS_PER_BATCH = 1000
REFUSALS = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "BAD_REQUEST")
"""Error codes after which the same request cannot succeed."""
NOTHING: Mapping[str, int] = {}
log = logging.getLogger(__name__)
_to_json = json.JSONEncoder(separators=(",", ":")).encode


@dataclass(frozen=True, slots=True)
class Params:
    """At most PARAMS_PER_BATCH of them."""

    values: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class RunTag:
    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Text:
    """An artifact."""

    name: str
    content: str


@dataclass(frozen=True, slots=True)
class Resume:
    """From here on the steps that the run has already keep their points: they may be trained again.

    MLflow keeps equal points once, but those of a step that is trained again have another time.
    """


Write = Points | Params | RunTag | Text | Resume


def to_line(write: Write) -> bytes:
    """One line of JSON with its end. A beginning of it is never valid JSON, so a torn line is found."""
    match write:
        case Points(step, time, values):
            record: list[object] = ["points", step, time, values]
        case Params(values):
            record = ["params", values]
        case RunTag(name, value):
            record = ["tag", name, value]
        case Text(name, content):
            record = ["text", name, content]
        case Resume():
            record = ["resume"]
    return _to_json(record).encode() + b"\n"


def from_line(line: bytes) -> Write:
    """Floats are equal to the bit, not-a-number and infinities included. Raises ValueError for what to_line did not make."""
    match json.loads(line):
        case ["points", int(step), int(time), [*values]] if all(map(_is_point, values)):
            return Points(step, time, tuple((name, value) for name, value in values))
        case ["params", dict(values)] if all(isinstance(value, str) for value in values.values()):
            return Params(values)
        case ["tag", str(name), str(value)]:
            return RunTag(name, value)
        case ["text", str(name), str(content)]:
            return Text(name, content)
        case ["resume"]:
            return Resume()
    raise ValueError("no record of a run")


def _is_point(value: object) -> bool:
    match value:
        case [str(), float()]:
            return True
    return False


def request_of(waiting: Iterable[Write]) -> list[Write]:
    """What goes into the next request: the first write, and with points all points that follow, as many as MLflow takes."""
    result: list[Write] = []
    points = 0
    for write in waiting:
        points += len(write.values) if isinstance(write, Points) else 0
        if result and (not isinstance(write, Points) or not isinstance(result[0], Points) or points > POINTS_PER_BATCH):
            break
        result.append(write)
    return result


def send(client: Client, run_id: str, request: Sequence[Write], recorded: Mapping[str, int] = NOTHING) -> None:
    """Points of a metric go from the step after the `recorded` one on. Raises what the client raises. May be repeated."""
    match request[0]:
        case Points():
            from mlflow.entities import Metric

            points = [write for write in request if isinstance(write, Points)]
            metrics = [Metric(_key(name), value, item.time, item.step) for item in points for name, value in item.values
                       if item.step > recorded.get(_key(name), item.step - 1)]
            for start in range(0, len(metrics), POINTS_PER_BATCH):  # one step may have more than a request takes
                client.log_batch(run_id, metrics=metrics[start:start + POINTS_PER_BATCH])
        case Params(values):
            _send_params(client, run_id, list(values.items()))
        case RunTag(name, value):
            client.set_tag(run_id, name, value)
        case Text(name, content):
            client.log_text(run_id, content, name)


def recorded_steps(client: Client, run_id: str) -> dict[str, int]:
    """The last step of each metric that the run has. Raises what the client raises.

    Writes go in order, so that all before it are there, too; the history itself may have millions of points.
    """
    return {metric.key: metric.step for metric in client.get_run(run_id).data.to_proto().metrics}  # `data.metrics` has no steps


def _send_params(client: Client, run_id: str, items: Sequence[tuple[str, str]]) -> None:
    """One changed value makes MLflow refuse a whole batch (a run keeps its first); then each goes alone."""
    from mlflow.entities import Param
    from mlflow.exceptions import MlflowException

    try:
        client.log_batch(run_id, params=[Param(*item) for item in items])
    except MlflowException as error:
        if not is_refusal(error) or len(items) == 1:
            raise
        for item in items:
            try:
                client.log_batch(run_id, params=[Param(*item)])
            except MlflowException as refusal:
                if not is_refusal(refusal):
                    raise
                log.warning("MLflow keeps another value of %s: %s", item[0], brief(refusal))


def is_refusal(error: Exception) -> bool:
    """Whether MLflow will never take this."""
    return getattr(error, "error_code", None) in REFUSALS


def as_recorded(params: Mapping[str, object]) -> dict[str, str]:
    """Parameters as MLflow will have them."""
    return {_key(name): str(value)[:PARAM_LENGTH] for name, value in params.items()}


@lru_cache(4096)
def _key(name: str) -> str:
    """`name` as MLflow takes it: some signs alone, and no name that would be another one as a path."""
    path = posixpath.normpath(re.sub(r"[^\w\-. :/]", "_", name)[:KEY_LENGTH]).lstrip("/")
    return "_" + path[1:] if path.startswith("..") or path in ("", ".") else path


def brief(error: Exception) -> str:
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')[:200]}"
