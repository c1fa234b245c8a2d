"""The shortest way from a network to a candidate, as a training pod leaves it."""

import warnings
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from dropout_api.candidate import (
    ASKED_BY,
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
    Task,
)
from dropout_api.metrics import TaskKind
from dropout_api.verdict import Basis, CheckResult, Outcome
from dropout_testing.onnx_exports import export_as_is
from dropout_testing.zoo.broken import CLASSES, FEATURES
from dropout_trainer.gate.candidate import Heldout, sha256
from dropout_trainer.gate.gate import SOURCE_CHECKS
from dropout_trainer.metrics.losses import point_answers

ROWS = 40
OF_CLASSES = Task(outputs=CLASSES)
ATTESTED = [CheckResult(name=name, outcome=Outcome.PASSED, basis=Basis.ATTESTED, evidence="as the pod says") for name in SOURCE_CHECKS]


@dataclass(frozen=True)
class Made:
    """What a training pod would leave, before it is changed by a test."""

    folder: Path
    config: CandidateConfig
    files: tuple[str, ...] = field(default=FILES)


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(FEATURES, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, CLASSES))


def heldout_rows() -> Tensor:
    return torch.randn(ROWS, FEATURES, generator=torch.Generator().manual_seed(5))


def heldout_of(network: nn.Module, task: Task = OF_CLASSES) -> Heldout:
    """Targets are what the network answers: exactly for classes, of values but for a tenth of their deviation. Segments go by turns."""
    rows = heldout_rows()
    was = network.training
    with torch.no_grad():
        output = network.eval()(rows)
    network.train(was)
    segment = torch.arange(ROWS) % len(task.segment_names) if task.segment_names else None
    if task.kind is TaskKind.CLASSIFICATION:
        return Heldout(rows, output.contiguous(), output.argmax(1), segment)
    noise = torch.randn(ROWS, task.values, generator=torch.Generator().manual_seed(6)) * torch.tensor(task.deviation) / 10
    return Heldout(rows, output.contiguous(), point_answers(task, output) + noise, segment)


def config_of(attested: list[CheckResult] | None = None, task: Task = OF_CLASSES) -> CandidateConfig:
    return CandidateConfig(
        seed=42, seeds={"torch": 42}, plan=[], task=task, input_shape=[FEATURES], versions={"torch": torch.__version__},
        data_sha256="0" * 64, model_factory="zoo:model", attested=ATTESTED if attested is None else attested,
    )


def export(network: nn.Module, rows: Tensor, path: Path) -> None:
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(network, (rows,), dynamic_shapes=({0: torch.export.Dim.AUTO},))
        torch.export.save(program, path)


def candidate(folder: Path, network: nn.Module, mode: str = "eval", task: Task = OF_CLASSES) -> Made:
    """Writes all files of a candidate to `folder`, as the exporter does; `mode` is the network's when it is exported."""
    folder.mkdir(parents=True, exist_ok=True)
    network.train(mode == "train")
    heldout, config = heldout_of(network, task), config_of(task=task)
    export(network, heldout.input[:4], folder / PROGRAM)
    write_heldout(folder, heldout)
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, folder / WEIGHTS)
    (folder / CONFIG).write_text(config.to_json())
    seal(folder)
    return Made(folder, config)


def write_heldout(folder: Path, heldout: Heldout) -> None:
    tensors = {"input": heldout.input, "output": heldout.output, "target": heldout.target, "segment": heldout.segment}
    save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, folder / HELDOUT)


def seal(folder: Path) -> None:
    """Writes the manifest of what lies in `folder` now."""
    names = [*FILES, *(name for name in ASKED_BY if (folder / name).exists())]
    files = {name: FileDigest(sha256=sha256(folder / name), size=(folder / name).stat().st_size) for name in names}
    (folder / MANIFEST).write_text(Manifest(files=files).to_json())


def add_onnx(folder: Path, network: nn.Module) -> None:
    """Adds an ONNX file to a candidate: `network`, as it is."""
    export_as_is(network, (heldout_rows()[:4],), folder / ONNX)
    seal(folder)


def add_mc(folder: Path, network: nn.Module) -> None:
    """Adds an MC-dropout program to a candidate: `network`, as it is."""
    export(network, heldout_rows()[:4], folder / MC)
    seal(folder)


