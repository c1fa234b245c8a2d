"""One call of `dropout check`: judges each target, says what was found, writes the files that were asked for."""

import contextlib
import logging
import sys
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from dropout_api.names import ExitCode
from dropout_trainer.check import junit, page, terminal
from dropout_trainer.check.arguments import Asked
from dropout_trainer.check.results import Document, Result
from dropout_trainer.check.targets import judge
from dropout_trainer.check.usercode import usage
from dropout_trainer.errors import StageFailure
from dropout_trainer.gate import rng

SEED = 0
"""Of the weights and inputs that a callable draws, so that two checks of it are of one model."""


def run(asked: Asked) -> ExitCode:
    """The worst exit code of all targets. Everything for people goes to standard error when JSON has standard output."""
    logging.getLogger().setLevel(logging.WARNING)
    console = Console(stderr=asked.json == "-", highlight=False)
    results = []
    for target in asked.targets:
        result = _result(target, asked, console)
        terminal.show(result, console, asked.verbose)
        results.append(result)
    document = Document.of(results)
    try:
        _write(document, asked)
    except StageFailure as failure:
        print(failure.message, file=sys.stderr)
        return failure.exit_code
    return document.exit_code


def _result(target: str, asked: Asked, console: Console) -> Result:
    begun = time.monotonic()
    name = target.encode(errors="replace").decode()  # a file's name may be any bytes
    try:
        rng.seed(SEED)
        # what a model prints is no part of the report
        with console.status(f"judging {terminal.printable(target)}"), contextlib.redirect_stdout(sys.stderr):
            report = judge(target, asked)
        return Result.of_report(name, report, time.monotonic() - begun)
    except StageFailure as failure:
        if asked.verbose and failure.__cause__:
            traceback.print_exception(failure.__cause__)
        return Result.of_failure(name, failure, time.monotonic() - begun)


def _write(document: Document, asked: Asked) -> None:
    """Raises StageFailure Usage, naming the file, when one cannot be written."""
    if asked.json == "-":
        print(document.model_dump_json(by_alias=True, exclude_none=True, indent=1))
    now = datetime.now(UTC)
    files: dict[str, tuple[Path | None, Callable[[], bytes]]] = {
        "--json": (Path(asked.json) if asked.json not in (None, "-") else None,
                   lambda: document.model_dump_json(by_alias=True, exclude_none=True, indent=1).encode() + b"\n"),
        "--junit": (asked.junit, lambda: junit.report(document, now)),
        "--html": (asked.html, lambda: page.of(document).encode()),
    }
    for option, (path, content) in files.items():
        if path is None:
            continue
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content())
        except OSError as error:
            raise usage(f"{option} {path}: {error.strerror or error}") from None
