"""Reads a candidate's files. All of them were written by a training pod, so each is sized and shape-checked first."""

import hashlib
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file

from dropout_api.builtins import describe
from dropout_api.candidate import ASKED_BY, CONFIG, FILES, HELDOUT, MANIFEST, MC, ONNX, PROGRAM, WEIGHTS, CandidateConfig, Manifest, Task
from dropout_api.metrics import TaskKind
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
MIN_ROWS = 2
MIN_CLASSES = 2
MEDIAN = 0.5
FAR = 1e-3
"""Share of values' distance from 0 that counts as their size: with a tolerance of 1e-3, eight steps of float32."""
REMEDY = "write the candidate with dropout_trainer's exporter"
CUT_OFF = "the export was cut off, or something else wrote to its folder; train again"
W = TypeVar("W", bound=Wire)


@dataclass(frozen=True)
class Heldout:
    """The test set: input [N, ...], output [N, outputs] of the eager model in eval mode, N >= 2.

    `target` is [N] in 0..outputs-1, or [N, values] of float32; `segment`, where the data have them, [N] of the segments' numbers.
    """

    input: torch.Tensor
    output: torch.Tensor
    target: torch.Tensor
    segment: torch.Tensor | None = None

    def inputs(self) -> Inputs:
        """Calls made from its first rows."""
        return Inputs(Call((self.input[:EXAMPLE_ROWS],)))

    def recorded(self) -> list[tuple[Call, Outputs]]:
        """Every row with its eager answer, in batches of the size in which those were computed."""
        batches = zip(torch.split(self.input, BATCH), torch.split(self.output, BATCH), strict=True)
        return [(Call((rows,)), {"output": answers}) for rows, answers in batches]

    def sizes(self, task: Task) -> torch.Tensor | None:
        """What a difference in each column of the answers is small or large against, [outputs] of float64; None for logits, whose own
        size says it.

        Values may lie far from 0 and have units of their own: so their spread counts, and of their distance from 0 only what
        float32 can tell.
        """
        if task.kind is TaskKind.CLASSIFICATION:
            return None
        answers = self.output.double()
        deviation = torch.tensor(task.deviation, dtype=torch.float64).repeat_interleave(max(1, len(task.quantiles)))
        return torch.maximum((answers - answers.mean(0)).abs().amax(0), deviation) + FAR * answers.mean(0).abs()


@dataclass(frozen=True)
class Predictor(Program):
    """A program that must answer N rows with [N, outputs]: logits, or values."""

    outputs: int = 2

    def answer(self, call: Call) -> torch.Tensor:
        """Raises RefusedError when it answers anything else."""
        return prediction(super().answer(call), len(call.tensors[0]), self.outputs)


def prediction(output: object, rows: int, outputs: int) -> torch.Tensor:
    """The output as float32. Raises RefusedError when it is not [rows, outputs]."""
    expected = [rows, outputs]
    if not isinstance(output, torch.Tensor) or list(output.shape) != expected:
        what = list(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
        raise RefusedError(f"{rows} rows were answered with {what}, not {expected}", "return one tensor [batch, outputs]")
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
    task = config.task
    if problem := flaw(task):
        raise RefusedError(f"{CONFIG}: {problem}", REMEDY)
    rows = tensors["input"].shape[0] if "input" in tensors and tensors["input"].dim() else 0
    expected = {
        "input": ([rows, *config.input_shape], DTYPES[config.input_dtype]),
        "output": ([rows, task.outputs], torch.float32),
        "target": ([rows], torch.int64) if task.kind is TaskKind.CLASSIFICATION else ([rows, task.values], torch.float32),
        **({"segment": ([rows], torch.int64)} if task.segment_names else {}),
    }
    if set(tensors) != set(expected):
        raise RefusedError(f"{HELDOUT} holds {sorted(tensors)[:8]}, not {', '.join(expected)}", REMEDY)
    for name, (shape, dtype) in expected.items():
        if list(tensors[name].shape) != shape or tensors[name].dtype != dtype:
            given = f"{list(tensors[name].shape)} {tensors[name].dtype}"
            raise RefusedError(f"{HELDOUT}: {name} is {given}, not {shape} {dtype}", REMEDY)
    heldout = Heldout(tensors["input"], tensors["output"], tensors["target"], tensors.get("segment"))
    _check_values(heldout, task)
    return heldout


def flaw(task: Task) -> str | None:
    """What contradicts itself in a task, in the words of its fields; None when nothing does."""
    classes, quantiles = task.kind is TaskKind.CLASSIFICATION, task.quantiles
    rising = sorted({level for level in quantiles if 0 < level < 1}) == quantiles and (not quantiles or MEDIAN in quantiles)
    wrong = {
        f"task.loss {task.loss} does not go with {task.kind}": (task.loss == "CrossEntropy") != classes,
        "task.quantiles must rise between 0 and 1 and hold 0.5, for the loss Quantile alone":
            (task.loss == "Quantile") != bool(quantiles) or not rising,
        f"task.outputs {task.outputs} is no multiple of {len(quantiles)} quantiles": bool(quantiles) and task.outputs % len(quantiles) != 0,
        f"task.outputs is {task.outputs}, but there are two classes at least": classes and task.outputs < MIN_CLASSES,
        f"task.deviation must be {task.values} positive numbers":
            not classes and (len(task.deviation) != task.values or not all(0 < value < math.inf for value in task.deviation)),
        f"task.classNames has {len(task.class_names)} names, but task.outputs is {task.outputs}":
            bool(task.class_names) and len(task.class_names) != (task.outputs if classes else 0),
    }
    return next((problem for problem, is_so in wrong.items() if is_so), None)


def _check_values(heldout: Heldout, task: Task) -> None:
    if len(heldout.target) < MIN_ROWS:
        raise RefusedError(f"{HELDOUT} has {len(heldout.target)} rows; the checks need {MIN_ROWS}", "hold out more data")
    counts = {"segment": (heldout.segment, len(task.segment_names), "segments")}
    if task.kind is TaskKind.CLASSIFICATION:
        counts["target"] = (heldout.target, task.outputs, "classes")
    for name, (numbers, count, what) in counts.items():
        if numbers is not None and (numbers.min() < 0 or numbers.max() >= count):
            raise RefusedError(f"{HELDOUT}: {name}s lie outside 0..{count - 1}", f"number the {what} from 0")
    for name, tensor in (("input", heldout.input), ("output", heldout.output), ("target", heldout.target)):
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
