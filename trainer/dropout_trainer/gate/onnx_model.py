"""A candidate's ONNX file as something that answers calls: what its graph says, and what onnxruntime makes of it, not optimised."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from onnx import ModelProto
from torch import Tensor

from dropout_api.verdict import CheckResult
from dropout_trainer.gate.candidate import prediction
from dropout_trainer.gate.formats import onnx_file, onnx_scan
from dropout_trainer.gate.formats.onnx_run import Session
from dropout_trainer.gate.inputs import Call
from dropout_trainer.gate.target import Target
from dropout_trainer.gate.trace import Parting
from dropout_trainer.gate.verdict import RefusedError

GRAPH = onnx_scan.NAME
BEHAVIOUR = ("batch_sizes", "repeat", "batch_invariance")
"""Of what is measured on an exported program: onnxruntime keeps no state that a forward could touch."""


@dataclass(frozen=True)
class OnnxPredictor(Target):
    """An ONNX model that must answer N rows with [N, outputs]: logits, or values."""

    graph: ModelProto
    """Without its weights."""
    session: Session
    outputs: int
    title: str = "the ONNX file"

    def answer(self, call: Call) -> Tensor:
        """Raises RefusedError when it answers anything else, or onnxruntime cannot answer."""
        outputs = self.session.run(call.tensors)
        if len(outputs) != 1:
            raise RefusedError(f"the model has {len(outputs)} outputs, not one", "return one tensor [batch, outputs]")
        return prediction(outputs[0], len(call.tensors[0]), self.outputs)

    def tensors(self) -> Mapping[str, Tensor]:
        return {}

    def part(self, calls: tuple[Call, Call], numbers: tuple[int, int], gradients: bool = False, rows: int | None = None) -> Parting | None:
        return None


def load(path: Path, outputs: int) -> OnnxPredictor:
    """Raises RefusedError when the file is malformed, unsafe, no model for onnxruntime, or keeps weights in other files."""
    file = onnx_file.load(path)
    if file.data:
        raise RefusedError(f"{path.name} keeps weights in {file.data[0].name[:80]!r}", "write the weights into the file itself")
    return OnnxPredictor(file.model, Session(path), outputs)


def scan(model: OnnxPredictor) -> CheckResult:
    """No node of it is in training mode."""
    return onnx_scan.scan(model.graph)
