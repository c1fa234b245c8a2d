"""The starting side of spec.command: the user's program runs as a child, and its end becomes the stage's."""

import json
import logging
import os
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from dropout_api.names import Env, ExitCode
from dropout_api.report import StageError, parse
from dropout_api.task import CommandTask
from dropout_trainer.errors import StageFailure
from dropout_trainer.stage import hand_in
from dropout_trainer.train.launch import KILLED, Layout, launch

NOTHING_EXPORTED = (
    "spec.command: {} has ended well, but it exported no model; call job.export(model, (test_inputs, test_targets)) at its end, job being "
    "what dropout_trainer.loop.start() returns"
)
TRAINED = "Trained"
"""Reason in the report of a program that has exported its model."""
log = logging.getLogger(__name__)


def is_asked_for(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether the task in the environment is one for a program of the user's; what is wrong with a task is told by whoever reads it."""
    try:
        return "command" in json.loads(environ.get(Env.TASK, ""))["spec"]
    except (ValueError, KeyError, TypeError):
        return False


def run(task: CommandTask) -> int:
    """Runs the program, once for each process of this node, and returns the stage's exit code; its report is written.

    Raises StageFailure when the program cannot be started, or has neither exported a model nor said why not.
    """
    layout = Layout.of(task.spec)
    with _report() as path:
        code = launch(task.spec.command, layout)
        text = path.read_text(encoding="utf-8") if path.exists() else ""
    told, command = parse(StageError, text), shlex.join(task.spec.command)[:200]
    done = told is not None and told.reason == TRAINED
    if code == 0 and done:
        hand_in(text)
    elif code and told and not done:
        hand_in(text)
        if told.reason != KILLED:  # else launch() has said it
            log.error("%s: %s", told.reason, told.message)
    elif code:
        message = f"spec.command: {command} ended with exit code {code}; its log says why"
        raise StageFailure("UserCode", message, ExitCode.USER_CODE)
    elif layout.node == 0:  # the other nodes' processes export nothing
        raise StageFailure("NothingExported", NOTHING_EXPORTED.format(command), ExitCode.USER_CODE)
    return code


@contextmanager
def _report() -> Iterator[Path]:
    """Where the program's report goes within the block, be there a kubelet that picks it up or not."""
    before = os.environ.get(Env.TERMINATION_LOG)
    with TemporaryDirectory(prefix="report-") as folder:
        path = Path(folder) / "report.json"
        os.environ[Env.TERMINATION_LOG] = str(path)
        try:
            yield path
        finally:
            del os.environ[Env.TERMINATION_LOG]
            if before is not None:
                os.environ[Env.TERMINATION_LOG] = before
