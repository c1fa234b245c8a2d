"""From a trained module to the program of its eval mode."""

from copy import deepcopy

import torch
from torch import Tensor, nn

from dropout_api.names import ExitCode
from dropout_trainer.dropout.native import to_native
from dropout_trainer.errors import StageFailure
from dropout_trainer.gate.target import quiet

EXAMPLE_ROWS = 4
REMEDY = (
    "torch.export needs a forward without Python branches or shapes that depend on the values or the size of the batch; "
    "see https://docs.pytorch.org/docs/stable/export.html"
)


def eval_copy(model: nn.Module) -> nn.Module:
    """A copy of `model` on the CPU, which is where a program stays that is exported there, after eval(), with torch's own dropout."""
    copy = deepcopy(model).cpu().eval()
    to_native(copy)
    return copy


@torch.no_grad()
def export_program(model: nn.Module, inputs: Tensor, title: str = "the model") -> torch.export.ExportedProgram:
    """The program of `model` as it is, for a batch of any size from 1; `inputs` [N, ...] with N ≥ 2 are its example.

    Raises StageFailure when torch.export cannot.
    """
    batch = torch.export.Dim("batch", min=1)
    try:
        with quiet():
            return torch.export.export(model, (inputs[:EXAMPLE_ROWS].clone(),), dynamic_shapes=({0: batch},))
    except Exception as error:  # torch.export fails with exceptions of many unrelated kinds
        text = " ".join(line.strip() for line in str(error).splitlines()[:4])
        message = f"{title} cannot be exported: {type(error).__name__}: {text[:600]}; {REMEDY}"
        raise StageFailure("ExportFailed", message, ExitCode.EXPORT_FAILED) from None
