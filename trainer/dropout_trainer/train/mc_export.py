"""From a trained module to the program of its MC dropout: dropout on, everything else in eval mode.

Gal, Ghahramani: Dropout as a Bayesian Approximation, ICML 2016 (arXiv 1506.02142). Switching on the nn.Dropout modules alone
would leave attention, recurrent layers and functional dropout off, which ask their own `training` flag; so the whole model goes
into training mode, and what is known to behave otherwise there for another reason than dropout is taken out again.
"""

from copy import deepcopy

from torch import Tensor, nn
from torch.export import ExportedProgram

from dropout_api.names import ExitCode
from dropout_trainer.errors import StageFailure
from dropout_trainer.gate.checks.graph import live_dropouts
from dropout_trainer.gate.target import Program
from dropout_trainer.train.export import export_program

KEPT_IN_EVAL = (nn.modules.batchnorm._NormBase, nn.RReLU)
"""Norms would answer by the batch at hand and move their statistics; the slopes of RReLU are random, but no dropout."""
TITLE = "the model with its dropout on, as spec.export.mcPasses asks,"
NONE_LIVE = (
    "spec.export.mcPasses: the model has no dropout that is on in training mode; raise a rate of spec.dropout, use a model with dropout, "
    "or leave mcPasses out"
)


def export_mc(model: nn.Module, inputs: Tensor) -> ExportedProgram:
    """The program of `model` with its dropout on, for a batch of any size from 1; `inputs` [N, ...] with N ≥ 2 are its example.

    `model` itself stays as it is. Raises StageFailure when it has no dropout, or cannot be exported in training mode.
    """
    program = export_program(with_dropout_on(model), inputs, TITLE)
    if not live_dropouts(Program(program))[0]:
        raise StageFailure("SpecInvalid", NONE_LIVE, ExitCode.SPEC_INVALID)
    return program


def with_dropout_on(model: nn.Module) -> nn.Module:
    """A copy of `model` in training mode, but for its norms."""
    copy = deepcopy(model).train()
    for module in copy.modules():
        if isinstance(module, KEPT_IN_EVAL):
            module.training = False  # eval() would reach dropout that a plan has added behind a norm
    return copy
