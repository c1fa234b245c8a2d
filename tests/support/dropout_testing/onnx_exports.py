"""Networks as torch's exporters write them to ONNX, in whatever mode they are."""

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn


def export_as_is(network: nn.Module, example: tuple[Tensor, ...], path: Path) -> Path:
    """What someone gets who exports without eval()."""
    batch = torch.export.Dim("batch", min=1)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(network, example, dynamic_shapes=tuple({0: batch} for _ in example))
        exported = torch.onnx.export(program, dynamo=True, external_data=False, verbose=False)
    assert exported is not None
    exported.save(path, external_data=False)
    return path


def export_through_torchscript(network: nn.Module, example: tuple[Tensor, ...], path: Path) -> Path:
    """The same with the exporter that older projects use."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(network, example, path, dynamo=False, training=torch.onnx.TrainingMode.PRESERVE, do_constant_folding=False)
    return path
