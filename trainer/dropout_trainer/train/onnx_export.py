"""From a trained module to the ONNX file of its eval mode."""

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import torch
from torch import Tensor, nn

from dropout_api.names import ExitCode
from dropout_trainer.errors import StageFailure
from dropout_trainer.train.export import eval_copy

OPSET = 20
"""Widely served, and what torch 2.13 writes by itself; fixed so that another torch writes the same."""
REMEDY = (
    "not every op of torch has a form in ONNX; see https://docs.pytorch.org/docs/stable/onnx_export.html, "
    "or leave ONNX out of spec.export.formats"
)


@torch.no_grad()
def export_onnx(model: nn.Module, example: tuple[Tensor, ...], path: Path) -> None:
    """Writes `model`, as it is after eval(), to `path`, with its weights inside, for a batch of any size from 1.

    Every tensor of `example` is [N, ...] with the same N ≥ 2. `model` itself stays as it is. Raises StageFailure when the
    model cannot be exported.
    """
    batch = torch.export.Dim("batch", min=1)
    shapes = tuple({0: batch} for _ in example)
    try:
        with _quiet():
            inputs = tuple(tensor.cpu() for tensor in example)
            program = torch.export.export(eval_copy(model), inputs, dynamic_shapes=shapes)
            exported = torch.onnx.export(
                program, dynamo=True, opset_version=OPSET, external_data=False, verbose=False,
                dynamic_shapes=shapes,  # the program has them already; given again, the dimension keeps its name
            )
            assert exported is not None
            exported.save(path, external_data=False)
    except Exception as error:  # torch's exporters fail with exceptions of many unrelated kinds
        path.unlink(missing_ok=True)
        message = f"the model cannot be exported to ONNX: {_reason(error)}; {REMEDY}"
        raise StageFailure("OnnxExportFailed", message, ExitCode.EXPORT_FAILED) from None


def _reason(error: BaseException) -> str:
    """The first line of what began it: the exporter wraps that in advice for its own developers."""
    while error.__cause__:
        error = error.__cause__
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:400]}"


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns, logs and prints about its own internals; nobody who reads the run's log can act on that."""
    disabled = logging.root.manager.disable
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(disabled)
