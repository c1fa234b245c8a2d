"""What `dropout check` can be asked. Loads nothing but argparse, so that its help answers at once."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

ACCEPTED = (
    "package.module:callable, a .pt2, .onnx or .safetensors file, a candidate's or an MLflow model's folder, models:/… or runs:/…, "
    "and with --trust a .pt, .pth or .pkl file"
)
DESCRIPTION = f"""Judge whether a model is in eval mode: no dropout that is on, no batch statistics, nothing random, sound scaling.

TARGET is {ACCEPTED}.

A callable takes no arguments and returns a torch.nn.Module, or a pair (module, example inputs); the current directory is on
its import path. An example is a tensor, a tuple of arguments, or a dictionary of keyword arguments. In a file, the names
arr_0, arr_1, … stand for arguments by place, as numpy.savez writes them, others for keyword arguments. Without an example the
model's own example_input_array or dummy_inputs is tried.

Files are read without running anything that lies in them, but for pickles and TorchScript, which need --trust.
"""
EPILOG = """exit codes: 0 passed, 1 failed, 3 undecided (something could not be shown), 64 wrong arguments, 66 no such file,
  69 MLflow does not answer, 70 the model's own code raised. Of several targets the worst counts: errors before a failure,
  a failure before an undecided one."""
BatchDim = int | Literal["auto"] | None


@dataclass(frozen=True)
class Asked:
    """One call of `dropout check`."""

    targets: list[str]
    example: str | None = None
    batch_dim: BatchDim = "auto"
    as_is: bool = False
    require_export: bool = False
    factory: str | None = None
    trust: bool = False
    json: str | None = None
    """A file, or - for standard output."""
    junit: Path | None = None
    html: Path | None = None
    verbose: bool = False

    @classmethod
    def of(cls, given: argparse.Namespace) -> "Asked":
        return cls(**{name: value for name, value in vars(given).items() if name in cls.__dataclass_fields__})


def add_to(commands: "argparse._SubParsersAction[Any]") -> None:
    """Adds the subcommand `check`."""
    parser = commands.add_parser(
        "check", help="judge any model file, or a callable that returns a model", description=DESCRIPTION, epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="+", metavar="TARGET", help="what to judge")
    parser.add_argument("--example", metavar="EXAMPLE", help="inputs to try: package.module:callable, a .npz, .npy or .safetensors file")
    parser.add_argument("--batch-dim", type=_batch_dim, default="auto", metavar="N|none",
                        help="dimension of the inputs that counts rows; none: no such thing (default: 0, unless the layers tell otherwise)")
    parser.add_argument("--as-is", action="store_true", help="judge the model in the mode that it is in, without calling eval()")
    parser.add_argument("--require-export", action="store_true", help="fail a model that torch.export cannot take")
    parser.add_argument("--factory", metavar="MODULE:CALLABLE", help="builds the module that a .safetensors file's weights are for")
    parser.add_argument("--trust", action="store_true", help="let pickles and TorchScript run, in a child process with limits")
    parser.add_argument("--json", metavar="FILE", help="write the report as JSON; - is standard output")
    parser.add_argument("--junit", type=Path, metavar="FILE", help="write a JUnit report: one test case for each check")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write one page for people")
    parser.add_argument("-v", "--verbose", action="store_true", help="print graph excerpts, and tracebacks of the model's own code")


def _batch_dim(text: str) -> BatchDim:
    if text == "auto":  # argparse reads a default that is a text as it reads an argument
        return "auto"
    if text == "none":
        return None
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is neither a dimension, counted from 0, nor 'none'")
    return int(text)
