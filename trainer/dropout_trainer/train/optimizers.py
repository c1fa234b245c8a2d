"""From a spec to an optimiser, its parameter groups, and the factor by which the learning rate moves."""

import math
from fnmatch import fnmatchcase

import torch
from torch import nn

from dropout_api.names import ExitCode
from dropout_api.training import Optimizer, Scheduler, TrainingSpec
from dropout_trainer.errors import StageFailure

ONE_CYCLE_RISE, ONE_CYCLE_START, ONE_CYCLE_END = 0.3, 1 / 25, 1 / 250_000
"""Share of the steps in which the rate rises, and its factors at both ends, as torch's OneCycleLR has them by default."""
NORMS = (nn.modules.batchnorm._NormBase,)


def make_optimizer(model: nn.Module, spec: Optimizer) -> torch.optim.Optimizer:
    """Over the parameters that are to be trained. Raises StageFailure when there are none, or a group matches none.

    Adam's step is one kernel for all parameters, where torch's default is a dozen for each; it takes real numbers alone.
    """
    groups = _groups(model, spec)
    fused = all(parameter.is_floating_point() for parameter in model.parameters())
    match spec.name:
        case "AdamW":
            return torch.optim.AdamW(groups, fused=fused)
        case "Adam":
            return torch.optim.Adam(groups, fused=fused)
        case "SGD":
            return torch.optim.SGD(groups, momentum=spec.momentum)
        case "RMSprop":
            return torch.optim.RMSprop(groups, momentum=spec.momentum)


def kept_by(spec: Optimizer) -> set[str]:
    """What the optimiser has of a parameter after its first step."""
    momentum = {"momentum_buffer"} if spec.momentum else set[str]()
    match spec.name:
        case "AdamW" | "Adam":
            return {"step", "exp_avg", "exp_avg_sq"}
        case "SGD":
            return momentum
        case "RMSprop":
            return {"step", "square_avg"} | momentum


def _groups(model: nn.Module, spec: Optimizer) -> list[dict[str, object]]:
    """One group for each of `spec.groups` and one for the rest; a parameter is in the first that matches it."""
    rates = [(group.learning_rate or spec.learning_rate, _given(group.weight_decay, spec.weight_decay)) for group in spec.groups]
    members: list[list[nn.Parameter]] = [[] for _ in range(len(rates) + 1)]
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            number = next((at for at, group in enumerate(spec.groups) if fnmatchcase(name, group.match)), len(rates))
            members[number].append(parameter)
    if not any(members):
        raise _nothing_to_train(model)
    for number, group in enumerate(spec.groups):
        if not members[number]:
            fits = f"'{group.match}' fits no parameter that is trained and in no group before it"
            raise _unmatched(f"optimizer.groups[{number}].match: {fits}", model)
    rates.append((spec.learning_rate, spec.weight_decay))
    return [{"params": found, "lr": rate, "weight_decay": decay} for found, (rate, decay) in zip(members, rates, strict=True) if found]


def _given(value: float | None, default: float) -> float:
    return default if value is None else value


def freeze(model: nn.Module, spec: TrainingSpec) -> list[nn.Module]:
    """Takes the parameters that `spec.freeze` matches out of training; returns the norms that keep their statistics, since all that is
    theirs is frozen. Raises StageFailure for a pattern that matches nothing."""
    for number, pattern in enumerate(spec.freeze):
        matched = [parameter for name, parameter in model.named_parameters() if fnmatchcase(name, pattern)]
        if not matched:
            raise _unmatched(f"freeze[{number}]: '{pattern}' fits no parameter", model)
        for parameter in matched:
            parameter.requires_grad_(False)
    norms = [module for module in model.modules() if isinstance(module, NORMS)]
    return [norm for norm in norms if list(norm.parameters()) and not any(parameter.requires_grad for parameter in norm.parameters())]


def _nothing_to_train(model: nn.Module) -> StageFailure:
    if list(model.parameters()):
        return StageFailure("SpecInvalid", "spec.training.freeze: leaves no parameter to train; name fewer", ExitCode.SPEC_INVALID)
    return StageFailure("UserCode", "spec.model.factory: the model has no parameters to train", ExitCode.USER_CODE)


def _unmatched(what: str, model: nn.Module) -> StageFailure:
    names = [name for name, _ in model.named_parameters()]
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return StageFailure("SpecInvalid", f"spec.training.{what}; the model has: {', '.join(names[:20])}{more}", ExitCode.SPEC_INVALID)


class LearningRate:
    """Moves the rates of an optimiser's groups, each by the same factor on its own rate, before each of `steps` steps."""

    def __init__(self, optimizer: torch.optim.Optimizer, spec: Scheduler, steps: int, steps_per_epoch: int) -> None:
        self._groups = [(group, float(group["lr"])) for group in optimizer.param_groups]
        self._spec, self._steps, self._steps_per_epoch = spec, steps, steps_per_epoch
        self._still = spec.name == "Constant" and not spec.warmup_epochs
        self.now = self._groups[-1][1]
        """Rate of the parameters that no group names, or else of the last group."""

    def at(self, step: int) -> None:
        """Sets the rates for this step, counted from 0."""
        if self._still:
            return
        by = factor(self._spec, step, self._steps, self._steps_per_epoch)
        for group, rate in self._groups:
            group["lr"] = self.now = rate * by


def factor(spec: Scheduler, step: int, steps: int, steps_per_epoch: int) -> float:
    """Of the learning rate at `step`, counted from 0, of `steps`: 0 to 1."""
    if spec.name == "OneCycle":
        return _one_cycle(step, steps)
    warm = round(spec.warmup_epochs * steps_per_epoch)
    if step < warm:
        return (step + 1) / (warm + 1)
    match spec.name:
        case "Cosine":
            done = (step - warm) / max(1, steps - warm)
            return spec.min_factor + (1 - spec.min_factor) * _half_cosine(done)
        case "Step":
            return max(spec.min_factor, spec.gamma ** (step // steps_per_epoch // spec.step_epochs))
        case _:
            return 1.0


def _one_cycle(step: int, steps: int) -> float:
    rise = max(1.0, ONE_CYCLE_RISE * steps - 1)
    if step <= rise:
        return 1 - (1 - ONE_CYCLE_START) * _half_cosine(step / rise)
    return ONE_CYCLE_END + (1 - ONE_CYCLE_END) * _half_cosine((step - rise) / max(1.0, steps - 1 - rise))


def _half_cosine(done: float) -> float:
    """From 1 at 0 down to 0 at 1."""
    return (1 + math.cos(math.pi * done)) / 2
