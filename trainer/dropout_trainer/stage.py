"""The border between a pod and the operator: the task comes in as an environment variable, the report goes out as the
container's termination message."""

import os
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from dropout_api._version import __version__
from dropout_api.builtins import describe
from dropout_api.model import Observed, Wire
from dropout_api.names import Env, ExitCode
from dropout_api.report import MAX_MESSAGE
from dropout_trainer.errors import StageFailure

Task = TypeVar("Task", bound=Wire)
OLDER = f"this image has dropout-operator {__version__}, and the operator is newer: build the image anew from the platform's trainer image"


def read_task(kind: type[Task]) -> Task:
    """The task that the operator set. Raises StageFailure when there is none or it is of another shape."""
    text = os.environ.get(Env.TASK)
    if not text:
        raise StageFailure("TaskMissing", f"{Env.TASK} is not set: this command is started by the operator", ExitCode.USAGE)
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        unknown = any(problem["type"] == "extra_forbidden" for problem in error.errors())
        remedy = f"; {OLDER}" if unknown else ""
        raise StageFailure("SpecInvalid", f"{describe(error, 'task')}{remedy}", ExitCode.SPEC_INVALID) from None


def write_report(report: Observed) -> None:
    """Leaves `report` where the kubelet picks it up; without a kubelet it is not written."""
    hand_in(report.to_json())


def hand_in(text: str) -> None:
    """As `write_report`, of a report that is JSON already."""
    path = Path(os.environ.get(Env.TERMINATION_LOG, "/dev/termination-log"))
    if path.exists() or Env.TERMINATION_LOG in os.environ:
        path.write_text(text, encoding="utf-8")


def mark_of_end(report: Path) -> Path:
    """A file beside the report of a program of the user's, there once the program has done all that it had to: what comes after is the
    interpreter's own end."""
    return report.with_suffix(".end")


def shortened(text: str) -> str:
    """`text` cut to what a report may hold, the middle left out: the start says what, the end often says why."""
    if len(text) <= MAX_MESSAGE:
        return text
    half = MAX_MESSAGE // 2 - 2
    return f"{text[:half]} … {text[-half:]}"
