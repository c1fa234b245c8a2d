"""Reads a candidate's files. All of them were written by a training pod, so each is sized and shape-checked first."""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file

from dropout_api.builtins import describe
from dropout_api.candidate import ASKED_BY, CONFIG, FILES, HELDOUT, MANIFEST, MC, ONNX, PROGRAM, WEIGHTS, CandidateConfig, Manifest
from dropout_api.model import Wire
from dropout_trainer.gate.inputs import Call, Inputs
from dropout_trainer.gate.outputs import Outputs
from dropout_trainer.gate.target import Program
from dropout_trainer.gate.verdict import RefusedError

MAX_BYTES = {PROGRAM: 8 << 30, MC: 8 << 30, ONNX: (2 << 30) - 1, HELDOUT: 4 << 30, WEIGHTS: 8 << 30, CONFIG: 4 << 20, MANIFEST: 64 << 10}
"""Largest accepted size of each file."""
DTYPES = {"float32": torch.float32, "int64": torch.int64}
EXAMPLE_ROWS = 16
"""Rows that stand for a usual batch; larger ones are tried too."""
BATCH = 64
REMEDY = "write the candidate with dropout_trainer's exporter"
CUT_OFF = "the export was cut off, or something else wrote to its folder; train again"
W = TypeVar("W", bound=Wire)


@dataclass(frozen=True)
class Heldout:
    """The test set: input [N, ...], output [N, classes] of the eager model in eval mode, target [N] in 0..classes-1; N >= 2."""

    input: torch.Tensor
    output: torch.Tensor
    target: torch.Tensor

    def inputs(self) -> Inputs:
        """Calls made from its first rows."""
        return Inputs(Call((self.input[:EXAMPLE_ROWS],)))

    def recorded(self) -> list[tuple[Call, Outputs]]:
        """Every row with its eager answer, in batches of the size in which those were computed."""
        batches = zip(torch.split(self.input, BATCH), torch.split(self.output, BATCH), strict=True)
        return [(Call((rows,)), {"output": answers}) for rows, answers in batches]


@dataclass(frozen=True)
class Classifier(Program):
    """A program that must answer N rows with logits [N, classes]."""

    classes: int = 2

    def answer(self, call: Call) -> torch.Tensor:
        """Raises RefusedError when it answers anything else."""
        return logits(super().answer(call), len(call.tensors[0]), self.classes)


def logits(output: object, rows: int, classes: int) -> torch.Tensor:
    """The output as float32. Raises RefusedError when it is not [rows, classes]."""
    expected = [rows, classes]
    if not isinstance(output, torch.Tensor) or list(output.shape) != expected:
        what = list(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
        raise RefusedError(f"{rows} rows were answered with {what}, not {expected}", "return logits [batch, classes]")
    return output.to(torch.float32)


def read_config(folder: Path) -> CandidateConfig:
    """Raises RefusedError when it is missing, too large or of another shape."""
    return _read(folder / CONFIG, CandidateConfig)


def read_manifest(folder: Path) -> Manifest:
    """Raises RefusedError when it is missing, too large or of another shape."""
    return _read(folder / MANIFEST, Manifest)


def check_names(found: Collection[str], names: Sequence[str]) -> None:
    """Raises RefusedError when a candidate has other files than `names`: what is optional is there when its job asks, and only then."""
    for name in sorted(set(names) ^ set(found)):
        if name in names:
            asked = f", but {ASKED_BY[name]} asks for it" if name in ASKED_BY else ""
            raise RefusedError(f"{name!r} is missing from the candidate{asked}", CUT_OFF)
        if name in ASKED_BY:
            field = ASKED_BY[name]
            raise RefusedError(f"{name!r} is part of the candidate, but {field} does not ask for it", f"set {field} as the training had it")
        raise RefusedError(f"{name[:80]!r} is not part of the candidate", CUT_OFF)


def check_digests(folder: Path, names: Sequence[str] = FILES) -> dict[str, str]:
    """SHA-256 of each file of `names`, after every one was compared with the manifest.

    Raises RefusedError for a missing, altered or too large file, and for one that the manifest does not name.
    """
    manifest = read_manifest(folder).files
    check_names(manifest, names)
    check_names({path.name for path in folder.iterdir()} - {MANIFEST}, names)
    for name in names:
        path, size = folder / name, (folder / name).stat().st_size
        if size > MAX_BYTES[name]:
            raise RefusedError(f"{name} has {size} bytes; {MAX_BYTES[name]} are accepted", "export a smaller model or test set")
        if size != manifest[name].size or sha256(path) != manifest[name].sha256:
            raise RefusedError(f"{name} is not the file that manifest.json describes", "it changed after the export; train again")
    return {name: manifest[name].sha256 for name in names}


def sha256(path: Path) -> str:
    """Of the file's bytes, in lower-case hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_heldout(folder: Path, config: CandidateConfig) -> Heldout:
    """Raises RefusedError when the tensors are not those of `config`: names, shapes, types, finite values, targets in range."""
    try:
        tensors = load_file(folder / HELDOUT)
    except (SafetensorError, OSError, ValueError) as error:
        raise RefusedError(f"{HELDOUT} is not readable ({str(error)[:160]})", REMEDY) from None
    if set(tensors) != {"input", "output", "target"}:
        raise RefusedError(f"{HELDOUT} holds {sorted(tensors)[:8]}, not input, output and target", REMEDY)
    heldout = Heldout(tensors["input"], tensors["output"], tensors["target"])
    rows = heldout.target.shape[0] if heldout.target.dim() == 1 else 0
    expected = {
        "input": ([rows, *config.input_shape], DTYPES[config.input_dtype]),
        "output": ([rows, config.task.outputs], torch.float32),
        "target": ([rows], torch.int64),
    }
    for name, (shape, dtype) in expected.items():
        if list(tensors[name].shape) != shape or tensors[name].dtype != dtype:
            given = f"{list(tensors[name].shape)} {tensors[name].dtype}"
            raise RefusedError(f"{HELDOUT}: {name} is {given}, not {shape} {dtype}", REMEDY)
    _check_values(heldout, config.task.outputs)
    return heldout


def _check_values(heldout: Heldout, classes: int) -> None:
    if len(heldout.target) < 2:
        raise RefusedError(f"{HELDOUT} has {len(heldout.target)} rows; the checks need 2", "hold out more data")
    if heldout.target.min() < 0 or heldout.target.max() >= classes:
        raise RefusedError(f"{HELDOUT}: targets lie outside 0..{classes - 1}", "number the classes from 0")
    for name, tensor in (("input", heldout.input), ("output", heldout.output)):
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise RefusedError(f"{HELDOUT}: {name} holds NaN or infinity", "find out where training diverged, or clean the data")


def _read(path: Path, kind: type[W]) -> W:
    if not path.is_file():
        raise RefusedError(f"{path.name} is missing", REMEDY)
    if path.stat().st_size > MAX_BYTES[path.name]:
        raise RefusedError(f"{path.name} has {path.stat().st_size} bytes; {MAX_BYTES[path.name]} are accepted", REMEDY)
    try:
        return kind.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise RefusedError(describe(error, path.name)[:600], REMEDY) from None
