"""Runs an ONNX model as it is written.

onnxruntime's optimiser removes a Dropout that is on, and with it what the gate looks for, so it is off here. The model
stays untrusted: a run has a limit of time, and all sessions of the process together have one of memory.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from torch import Tensor

from dropout_trainer.gate.verdict import RefusedError

MAX_SECONDS = 120.0
"""For one run."""
MAX_BYTES = 8 << 30
"""For weights and intermediate results of all sessions of the process."""
DTYPES = {
    "tensor(float)": torch.float32, "tensor(double)": torch.float64, "tensor(float16)": torch.float16, "tensor(int64)": torch.int64,
    "tensor(int32)": torch.int32, "tensor(int16)": torch.int16, "tensor(int8)": torch.int8, "tensor(uint8)": torch.uint8,
    "tensor(bool)": torch.bool,
}
REMEDY = "export the model with torch.onnx.export, for the ops and the opset of the verifier's onnxruntime"
PLAIN = "let the model take and return tensors of floats, integers or booleans"


@dataclass(frozen=True)
class InputSpec:
    """What one input takes."""

    name: str
    dtype: torch.dtype
    shape: tuple[int | str | None, ...]
    """A number is fixed, a name is the same number wherever it stands, None is any number."""


class Session:
    """A model whose file `onnx_file.load` accepted, ready to run on the CPU, not optimised."""

    def __init__(self, path: Path, seconds: float = MAX_SECONDS) -> None:
        """`seconds` is the limit of one run. Raises RefusedError when onnxruntime cannot load the model or an input is no plain tensor."""
        _limit_memory()
        self.seconds = seconds
        with _refusing("load"):
            self._session = ort.InferenceSession(str(path), _options(), providers=["CPUExecutionProvider"])
        self.inputs = tuple(_spec(node) for node in self._session.get_inputs())

    def run(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """All outputs of the model for its inputs, given in the order of `inputs`. Raises RefusedError when it cannot or takes too long."""
        if len(tensors) != len(self.inputs):
            raise RefusedError(f"the model takes {len(self.inputs)} inputs and was given {len(tensors)}", "give it as many as it takes")
        feeds = {spec.name: _array(spec, tensor) for spec, tensor in zip(self.inputs, tensors, strict=True)}
        options = ort.RunOptions()
        timer = threading.Timer(self.seconds, setattr, (options, "terminate", True))
        timer.daemon = True
        timer.start()
        try:
            with _refusing("run"):
                outputs = self._session.run(None, feeds, options)
        finally:
            timer.cancel()
        return [_tensor(output) for output in outputs]


@cache
def _limit_memory() -> None:
    """Gives the sessions of this process one allocator, which refuses what goes beyond the limit."""
    place = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    as_requested = 1  # by default it takes twice what it had
    ort.create_and_register_allocator(place, ort.OrtArenaCfg({"max_mem": MAX_BYTES, "arena_extend_strategy": as_requested}))


def _options() -> Any:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    options.log_severity_level = 4  # errors are raised, too
    options.add_session_config_entry("session.load_model_format", "ONNX")
    options.add_session_config_entry("session.use_env_allocators", "1")
    return options


@contextmanager
def _refusing(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # onnxruntime raises classes of its own that share no other base
        text = " ".join(line.strip() for line in str(error).splitlines()) or type(error).__name__
        raise RefusedError(f"onnxruntime {ort.__version__} cannot {what} the model ({text[:400]})", REMEDY) from None


def _spec(node: Any) -> InputSpec:
    if node.type not in DTYPES:
        raise RefusedError(f"input '{node.name[:80]}' is a {node.type[:80]}, which the gate cannot give", PLAIN)
    return InputSpec(node.name, DTYPES[node.type], tuple(node.shape))


def _array(spec: InputSpec, tensor: Tensor) -> Any:
    if tensor.dtype is not spec.dtype:
        raise RefusedError(f"input '{spec.name[:80]}' takes {spec.dtype} and was given {tensor.dtype}", "give it the type that it takes")
    return tensor.detach().cpu().contiguous().numpy()


def _tensor(output: Any) -> Tensor:
    if not isinstance(output, np.ndarray) or output.dtype.kind not in "fiub":
        what = output.dtype if isinstance(output, np.ndarray) else type(output).__name__
        raise RefusedError(f"an output of the model is a {what}, which the gate cannot compare", PLAIN)
    return torch.from_numpy(output)
