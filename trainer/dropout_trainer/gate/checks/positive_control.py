"""Training mode does vary. Without that, an eval mode that does not vary would say nothing about dropout."""

import copy

import torch
from torch import nn

from dropout_api.verdict import CheckResult
from dropout_trainer.gate.checks.module_walk import modal
from dropout_trainer.gate.inputs import Inputs
from dropout_trainer.gate.outputs import identical
from dropout_trainer.gate.target import Module
from dropout_trainer.gate.verdict import not_applicable, passed

DRAWS = 8


def positive_control(name: str, target: Module, inputs: Inputs) -> CheckResult:
    """With dropout layers that have a rate, answers in training mode differ from seed to seed."""
    try:
        model = copy.deepcopy(target.module)
    except Exception as error:
        return not_applicable(name, f"the model cannot be copied ({type(error).__name__}), so its mode is left alone")
    model.train()
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._NormBase)]
    for norm in norms:
        norm.eval()
    try:
        answers = [Module(model).seeded(inputs.call(), number) for number in range(DRAWS)]
    except Exception as error:
        return not_applicable(name, f"a forward in training mode raised {type(error).__name__}")
    varied = sum(not identical(answer, answers[0]) for answer in answers)
    if varied:
        return passed(name, f"in training mode {varied} of {DRAWS - 1} answers differ from the first")
    layers = [path or type(model).__name__ for path, module in model.named_modules() if modal(module) and module not in norms]
    if not layers:
        return not_applicable(name, "no layer has a dropout rate")
    inert = _inert(model)
    if inert:
        return not_applicable(name, f"train() leaves {inert} in eval mode, so training is no control here")
    return not_applicable(name, f"{', '.join(layers[:4])}: the answer does not depend on them")


def _inert(model: nn.Module) -> str | None:
    return next((path for path, module in model.named_modules() if modal(module) and not module.training
                 and not isinstance(module, nn.modules.batchnorm._NormBase)), None)


def mode_cycle(module: nn.Module) -> None:
    """Through training mode and back, which shows a train() that cannot be undone."""
    with torch.no_grad():
        module.train()
        module.eval()
