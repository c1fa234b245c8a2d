"""From a trained module to a candidate's files: its programs, a held-out set to judge them by, its weights."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from dropout_api.candidate import (
    CONFIG,
    FILES,
    HELDOUT,
    MANIFEST,
    MC,
    ONNX,
    PROGRAM,
    WEIGHTS,
    CandidateConfig,
    FileDigest,
    Manifest,
    files_for,
)
from dropout_api.spec import ExportSpec, Format
from dropout_api.verdict import CheckResult
from dropout_trainer.data import Split
from dropout_trainer.gate.gate import attest
from dropout_trainer.gate.inputs import Call, Inputs
from dropout_trainer.train.export import EXAMPLE_ROWS, eval_copy, export_program
from dropout_trainer.train.mc_export import export_mc
from dropout_trainer.train.modes import drawing
from dropout_trainer.train.onnx_export import export_onnx

HELDOUT_ROWS = 2048
"""Rows of the test set that a candidate carries at most, the first ones."""
ATTEST_ROWS = 16
"""Rows of the test set on which the checks of the live model are made."""
HELDOUT_BATCH = 64
"""Batch size of the recorded outputs: in another size a row's last bits may differ. Recorded in the file's metadata."""


@torch.no_grad()
def answers(model: nn.Module, inputs: Tensor) -> Tensor:
    """The eager model's outputs [N, outputs], computed in batches of HELDOUT_BATCH rows."""
    return torch.cat([model(batch) for batch in torch.split(inputs, HELDOUT_BATCH)])


def attested(model: nn.Module, inputs: Tensor) -> list[CheckResult]:
    """What the gate's checks of the live model, made by `eval_copy`, find on the first rows of `inputs`."""
    return attest(model, Inputs(Call((inputs[:ATTEST_ROWS],))))


def write_candidate(folder: Path, model: nn.Module, test: Split, config: CandidateConfig, export: ExportSpec) -> list[Path]:
    """Writes the files of a candidate for `model`, made by `eval_copy`, in the order in which to upload them.

    Raises StageFailure when the model cannot be exported.
    """
    heldout = test.take(torch.arange(min(HELDOUT_ROWS, len(test))))
    torch.export.save(export_program(model, heldout.inputs), folder / PROGRAM)
    write_optional(folder, model, heldout.inputs, export)
    tensors = {"input": heldout.inputs, "output": answers(model, heldout.inputs), "target": heldout.targets}
    if heldout.segments is not None:
        tensors["segment"] = heldout.segments
    _save(tensors, folder / HELDOUT, {"batch_size": str(HELDOUT_BATCH)})
    weights = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    _save(weights, folder / WEIGHTS, {"format": "pt"})
    (folder / CONFIG).write_text(config.to_json(), encoding="utf-8")
    names = files_for(export)
    manifest = Manifest(files={name: _digest(folder / name) for name in names})
    (folder / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
    return [folder / name for name in (*names, MANIFEST)]


def write_optional(folder: Path, model: nn.Module, inputs: Tensor, export: ExportSpec) -> None:
    """Writes the files that `export` asks for beyond what every candidate has. Raises StageFailure when the model has no such form."""
    if export.mc_passes:
        torch.export.save(export_mc(model, inputs), folder / MC)
    if Format.ONNX in export.formats:
        export_onnx(model, (inputs[:EXAMPLE_ROWS].clone(),), folder / ONNX)


def rehearse(model: nn.Module, inputs: Tensor, export: ExportSpec) -> None:
    """Raises StageFailure when the model, trained or not, cannot be exported as `export` asks: better told before a training than after.

    Neither the model nor any random stream is changed.
    """
    if files_for(export) == FILES:
        return
    with TemporaryDirectory(prefix="rehearsal-") as folder, drawing(restore=True):
        write_optional(Path(folder), eval_copy(model), inputs, export)


def _save(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    """Each tensor as a copy of its own: safetensors refuses tensors that share memory, as tied weights do."""
    save_file({name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}, path, metadata)


def _digest(path: Path) -> FileDigest:
    sha = hashlib.sha256()
    for block in _blocks(path):
        sha.update(block)
    return FileDigest(sha256=sha.hexdigest(), size=path.stat().st_size)


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            yield block
