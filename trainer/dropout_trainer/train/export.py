"""From a trained module to a candidate's files: the program of its eval mode, a held-out set to judge it by, its weights."""

import hashlib
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from dropout_api.candidate import CONFIG, FILES, HELDOUT, MANIFEST, PROGRAM, WEIGHTS, CandidateConfig, FileDigest, Manifest
from dropout_api.names import ExitCode
from dropout_trainer.data import Split
from dropout_trainer.errors import StageFailure

HELDOUT_ROWS = 2048
"""Rows of the test set that a candidate carries at most, the first ones."""
HELDOUT_BATCH = 64
"""Batch size of the recorded outputs: in another size a row's last bits may differ. Recorded in the file's metadata."""
EXAMPLE_ROWS = 4
REMEDY = (
    "torch.export needs a forward without Python branches or shapes that depend on the values or the size of the batch; "
    "see https://docs.pytorch.org/docs/stable/export.html"
)


def eval_copy(model: nn.Module) -> nn.Module:
    """A copy of `model` on the CPU, which is where a program stays that is exported there, after eval()."""
    return deepcopy(model).cpu().eval()


@torch.no_grad()
def export_program(model: nn.Module, inputs: Tensor) -> torch.export.ExportedProgram:
    """The program of `model` as it is, for a batch of any size from 1; `inputs` [N, ...] with N ≥ 2 are its example.

    Raises StageFailure when torch.export cannot.
    """
    batch = torch.export.Dim("batch", min=1)
    try:
        return torch.export.export(model, (inputs[:EXAMPLE_ROWS].clone(),), dynamic_shapes=({0: batch},))
    except Exception as error:  # torch.export fails with exceptions of many unrelated kinds
        text = " ".join(line.strip() for line in str(error).splitlines()[:4])
        message = f"the model cannot be exported: {type(error).__name__}: {text[:600]}; {REMEDY}"
        raise StageFailure("ExportFailed", message, ExitCode.EXPORT_FAILED) from None


@torch.no_grad()
def answers(model: nn.Module, inputs: Tensor) -> Tensor:
    """The eager model's outputs [N, classes], computed in batches of HELDOUT_BATCH rows."""
    return torch.cat([model(batch) for batch in torch.split(inputs, HELDOUT_BATCH)])


def write_candidate(folder: Path, model: nn.Module, test: Split, config: CandidateConfig) -> list[Path]:
    """Writes the files of a candidate for `model`, made by `eval_copy`, in the order in which to upload them.

    Raises StageFailure when the model cannot be exported.
    """
    heldout = Split(test.inputs[:HELDOUT_ROWS], test.targets[:HELDOUT_ROWS])
    torch.export.save(export_program(model, heldout.inputs), folder / PROGRAM)
    tensors = {"input": heldout.inputs, "output": answers(model, heldout.inputs), "target": heldout.targets}
    _save(tensors, folder / HELDOUT, {"batch_size": str(HELDOUT_BATCH)})
    weights = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    _save(weights, folder / WEIGHTS, {"format": "pt"})
    (folder / CONFIG).write_text(config.to_json(), encoding="utf-8")
    manifest = Manifest(files={name: _digest(folder / name) for name in FILES})
    (folder / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
    return [folder / name for name in (*FILES, MANIFEST)]


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
