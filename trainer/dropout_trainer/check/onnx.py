"""Judges an ONNX file: a scan of its graph, then its behaviour in onnxruntime, not optimised. Nothing in it can run code."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dropout_api.verdict import CheckResult
from dropout_trainer.check import examples
from dropout_trainer.check.arguments import Asked
from dropout_trainer.gate.formats import onnx_file, onnx_scan
from dropout_trainer.gate.formats.onnx_run import InputSpec, Session
from dropout_trainer.gate.gate import BEHAVIOUR, attempt, settle
from dropout_trainer.gate.inputs import Call, Inputs
from dropout_trainer.gate.target import Target
from dropout_trainer.gate.trace import Parting
from dropout_trainer.gate.verdict import GateReport, RefusedError, could_not_run, failed, not_applicable, passed

ROWS = 4
SIZE = 8
"""Of every other dimension that the file leaves open, as the length of a sequence."""
CHECKS = ("batch_sizes", "repeat", "batch_invariance")
"""Of what is measured on an exported program: onnxruntime keeps no state that a forward could touch."""


@dataclass(frozen=True)
class OnnxModel(Target):
    """An ONNX model; its inputs by place or by name."""

    session: Session
    title: str = "the model"

    def answer(self, call: Call) -> list[Tensor]:
        """Raises RefusedError when an input is missing or unknown, or onnxruntime cannot answer."""
        given = dict(zip((spec.name for spec in self.session.inputs), call.args, strict=False)) | call.kwargs
        wanted = [spec.name for spec in self.session.inputs]
        if sorted(given) != sorted(wanted) or len(call.args) + len(call.kwargs) != len(wanted):
            raise RefusedError(f"the model takes {', '.join(wanted)[:300]} and was given {len(call.args)} inputs by place and "
                               f"{', '.join(call.kwargs)[:300] or 'none'} by name", "give an example with --example that has these inputs")
        return self.session.run([given[name] for name in wanted])

    def tensors(self) -> Mapping[str, Tensor]:
        return {}

    def part(self, calls: tuple[Call, Call], numbers: tuple[int, int], gradients: bool = False, rows: int | None = None) -> Parting | None:
        return None


def judge(path: Path, asked: Asked) -> GateReport:
    """Everything that can be seen of an ONNX file alone."""
    try:
        file = onnx_file.load(path)
    except RefusedError as error:
        return GateReport(checks=[failed("archive", error.evidence, error.remedy)])
    archive = passed("archive", "the file holds tensors and ONNX's own ops, and no code")
    source = not_applicable("module_walk", "no live module: what was exported is what is judged")
    scanned = attempt(onnx_scan.NAME, lambda: onnx_scan.scan(file.model))
    return GateReport(checks=[archive, scanned, *_behaviour(path, asked), source])


def _behaviour(path: Path, asked: Asked) -> list[CheckResult]:
    try:
        model = OnnxModel(Session(path))
        inputs = _inputs(model.session.inputs, asked)
        model.run(inputs.example)
    except RefusedError as error:
        how = "" if asked.example else "; the inputs were made up, so give real ones with --example"
        return [could_not_run("example", f"{error.evidence}{how}", error.remedy)]
    tried = passed("example", f"{'given' if asked.example else 'made up'}: {_described(model.session.inputs, inputs.example)}")
    settled = settle(model, inputs)
    return [tried, *(attempt(name, lambda name=name: BEHAVIOUR[name](name, model, settled)) for name in CHECKS)]  # type: ignore[misc]


def _inputs(specs: tuple[InputSpec, ...], asked: Asked) -> Inputs:
    """The example that was asked for, or one of the types and sizes that the file names; rows may change where it leaves them open."""
    open_dims = [next((dim for dim, size in enumerate(spec.shape) if not isinstance(size, int)), None) for spec in specs]
    first = next((dim for dim in open_dims if dim is not None), None)
    inputs = Inputs(_made_up(specs, first), batch_dim=0 if first is None else first, fixed_rows=first is None)
    if asked.example:
        inputs = replace(inputs, example=examples.named(asked.example))
    return inputs if asked.batch_dim == "auto" else replace(inputs, batch_dim=asked.batch_dim)


def _made_up(specs: tuple[InputSpec, ...], batch_dim: int | None) -> Call:
    generator = torch.Generator().manual_seed(1)
    sizes: dict[str, int] = {}

    def size(dim: int, given: Any) -> int:
        if isinstance(given, int):
            return given
        made = ROWS if dim == batch_dim else SIZE
        return sizes.setdefault(given, made) if given else made

    def tensor(spec: InputSpec) -> Tensor:
        shape = [size(dim, given) for dim, given in enumerate(spec.shape)]
        if spec.dtype.is_floating_point:
            return torch.randn(shape, generator=generator).to(spec.dtype)
        return torch.randint(0, 2, shape, generator=generator).to(spec.dtype)  # what any vocabulary has, and any mask

    return Call(tuple(tensor(spec) for spec in specs))


def _described(specs: tuple[InputSpec, ...], call: Call) -> str:
    given = dict(zip((spec.name for spec in specs), call.args, strict=False)) | call.kwargs
    return ", ".join(f"{name} {str(value.dtype).removeprefix('torch.')} {list(value.shape)}" for name, value in given.items())[:400]
