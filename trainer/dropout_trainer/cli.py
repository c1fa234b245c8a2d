"""The `dropout` command: one subcommand for each stage that a pod can be.

It imports a stage's code when that stage is asked for, so that `dropout --help` answers without loading torch.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from typing import NoReturn

from dropout_api.names import ExitCode
from dropout_trainer.check import arguments as check_arguments

EPILOG = "The operator starts train and verify, and says what to do in DROPOUT_TASK; they take no further arguments."


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(ExitCode.USAGE, f"{self.prog}: {message}\n")


class _Line(logging.Formatter):
    """The message alone, with the level in front when it is more than information: a pod's log already has times."""

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        return line if record.levelno <= logging.INFO else f"{record.levelname.lower()}: {line}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one stage and returns its exit code, an `ExitCode` or 128 + signal."""
    parser = _Parser(prog="dropout", description="Train a torch model and verify it.", epilog=EPILOG)
    stages = parser.add_subparsers(dest="stage", metavar="STAGE")
    stages.add_parser("train", help="train, export in eval mode and upload a candidate")
    stages.add_parser("verify", help="run the eval-mode gate on a candidate and register what passes")
    check_arguments.add_to(stages)
    given = parser.parse_args(arguments)
    _log_to_stderr()
    match given.stage:
        case "train":
            from dropout_trainer.train.ending import run_stage

            return run_stage()
        case "verify":
            from dropout_trainer.verify.run import main as verify

            return verify()
        case "check":
            from dropout_trainer.check.command import run as check

            return check(check_arguments.Asked.of(given))
        case _:
            parser.print_help()
            return 0


def _log_to_stderr() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Line())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
