"""The `dropout` command: the stages that a pod can be, and what people ask at a terminal.

It imports a command's code when that command is asked for, so that `dropout --help` answers without loading torch.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from typing import NoReturn

from dropout_api.names import ExitCode
from dropout_trainer.check import arguments as check_arguments

EPILOG = """`dropout train`, and `dropout verify` without a target, are started by the operator, which says what to do in DROPOUT_TASK.
Exit codes: 0 passed, 1 rejected or different, 3 undecided, 64 wrong arguments, 65 data that cannot be used, 66 no such file or run,
69 MLflow does not answer, 70 your code raised, 71 a loss that is not finite, 73 a model that cannot be exported, 74 no place for files,
75 interrupted and saved: the same command goes on, 78 a wrong manifest; 128 and the signal's number: interrupted with nothing to save."""
STDIN_HELP = "- for standard input"
HOME = "./dropout-runs"
KEY_HELP = "PEM file of the public keys, of which one must have signed (default: the file that DROPOUT_VERIFYING_KEY names)"


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
    """Runs one command and returns its exit code, an `ExitCode` or 128 + signal."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if given.command == "verify" and not given.target and (given.json or given.key):
        parser.error("verify: --json and --key need a TARGET")
    _log_to_stderr()
    match given.command:
        case "train":
            from dropout_trainer.train.ending import run_stage

            return run_stage()
        case "verify" if given.target:
            from dropout_trainer.verify.target import main as verify_target

            return verify_target(given.target, given.key, given.json)
        case "verify":
            from dropout_trainer.verify.run import main as verify

            return verify()
        case "audit":
            from dropout_trainer.verify.audit import Wish
            from dropout_trainer.verify.audit import main as audit

            return audit(Wish(tuple(given.model), given.key, given.json, given.quarantine, given.limit))
        case "validate":
            from dropout_trainer.validate.command import run as validate

            return validate(given.files, given.json)
        case "run":
            from dropout_trainer.local.command import Asked, run

            return run(Asked(given.file, given.home, given.again, dict(given.volume)))
        case "plan":
            from dropout_trainer.preview.command import run as plan

            return plan(given.file, given.json)
        case "reproduce":
            from dropout_trainer.reproduce.command import run as reproduce

            return reproduce(given.run, given.epochs, given.json)
        case "check":
            from dropout_trainer.check.command import run as check

            return check(check_arguments.Asked.of(given))
        case _:
            parser.print_help()
            return 0


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="dropout", description="Train a torch model and verify it.", epilog=EPILOG,
                     formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    validate = commands.add_parser("validate", help="say everything that is wrong in manifests, without a cluster")
    validate.add_argument("files", nargs="+", metavar="FILE", help=f"a manifest in YAML or JSON; {STDIN_HELP}")
    run = commands.add_parser("run", help="train, verify and register here, without a cluster; again, it goes on where it was interrupted")
    run.add_argument("file", metavar="FILE", help=f"a manifest; {STDIN_HELP}")
    run.add_argument("--home", default=HOME, metavar="FOLDER", help=f"place of MLflow's database, models and checkpoints (default: {HOME})")
    run.add_argument("--again", action="store_true", help="train a job anew, in a new run, although it is finished or could go on")
    run.add_argument("--volume", action="append", default=[], type=_volume, metavar="NAME=FOLDER",
                     help="the folder that stands for a volume claim, ConfigMap or Secret of spec.podTemplate.volumes; may be repeated")
    plan = commands.add_parser("plan", help="print the dropout plan that a manifest's model will get")
    plan.add_argument("file", metavar="FILE", help=f"a manifest; {STDIN_HELP}")
    commands.add_parser("train", help="train, export in eval mode and upload a candidate")
    reproduce = commands.add_parser("reproduce", help="train again from an MLflow run and say whether it is the same; changes nothing")
    reproduce.add_argument("run", metavar="RUN_ID", help="the run, of the server that MLFLOW_TRACKING_URI names")
    reproduce.add_argument("--epochs", type=_epochs, metavar="N", help="compare the first N epochs alone, and no weights")
    check_arguments.add_to(commands)
    verify = commands.add_parser("verify", help="check a registered version against its verdict; without a target, the operator's stage")
    verify.add_argument("target", nargs="?", metavar="TARGET", help="models:/NAME/VERSION, models:/NAME@ALIAS or a folder")
    audit = commands.add_parser("audit", help="look at every registered version: gated, unchanged, signed, in eval mode now")
    audit.add_argument("--model", action="append", default=[], metavar="NAME", help="only this registered model; may be repeated")
    audit.add_argument("--quarantine", action="store_true", help="take the aliases from every version that fails, and tag it")
    audit.add_argument("--limit", type=_gib, default=8.0, metavar="GIB", help="most that is downloaded of one version (default: 8)")
    for command in (verify, audit):
        command.add_argument("--key", metavar="FILE", help=KEY_HELP)
    for command in (validate, plan, reproduce, verify, audit):
        command.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _gib(text: str) -> float:
    value = float(text)
    if not 0 <= value < 2**20:
        raise argparse.ArgumentTypeError(f"{text} is not a size in GiB")
    return value


def _volume(text: str) -> tuple[str, str]:
    name, given, folder = text.partition("=")
    if not (name and given and folder):
        raise argparse.ArgumentTypeError(f"{text} is not NAME=FOLDER")
    return name, folder


def _epochs(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no number of epochs")
    return int(text)


def _log_to_stderr() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Line())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
