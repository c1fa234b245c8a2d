"""eval() reached every module whose behaviour depends on its mode, those that no parent has registered included.

Flags alone are a false alarm: a layer may be in training mode and never called, or have nothing that differs there. So what
is found must also run.
"""

import functools
from collections.abc import Iterator
from types import CellType, FunctionType, MethodType
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.instancenorm import _InstanceNorm

from dropout_api.verdict import CheckResult, Location
from dropout_trainer.gate.inputs import Inputs
from dropout_trainer.gate.target import Module
from dropout_trainer.gate.verdict import failed, passed

REGISTER = "register it as a submodule (an attribute, nn.ModuleList or nn.ModuleDict), so that eval() reaches it"
OVERRIDE = "let an overridden train(mode) pass its mode on to every child: super().train(mode), then return self"
CALL_EVAL = "call model.eval() first"
MAX_DEPTH = 4


def module_walk(name: str, target: Module, inputs: Inputs) -> CheckResult:
    """No module that runs, and behaves otherwise in training mode, is in training mode."""
    registered = {id(module): path for path, module in target.module.named_modules()}
    found = [(path, module) for path, module in target.module.named_modules() if module.training and modal(module)]
    hidden = [(path, module) for path, module in unregistered(target.module) if module.training and modal(module)]
    running = _running(target, inputs, [module for _, module in (*found, *hidden)])
    for path, module in (*found, *hidden):
        if id(module) in running:
            return _failed(name, target.module, path, module, id(module) not in registered)
    idle = f"; {len(found) + len(hidden)} in training mode never run" if found or hidden else ""
    return passed(name, f"{len(registered)} modules, none that runs is in training mode{idle}")


def modal(module: nn.Module) -> bool:
    """Whether a module of torch's own behaves otherwise in training mode, as it is configured."""
    match module:
        case _DropoutNd():
            return bool(module.p > 0)
        case _BatchNorm():
            return True
        case _InstanceNorm():
            return bool(module.track_running_stats)
        case nn.RNNBase():
            return bool(module.dropout > 0 and module.num_layers > 1)
        case nn.MultiheadAttention():
            return bool(module.dropout > 0)
        case nn.RReLU():
            return bool(module.lower != module.upper)
        case _:
            return False


def unregistered(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Modules that can be reached from `model` in python, but are no submodules, each with a path to it."""
    seen = {id(module) for module in model.modules()}
    for path, module in model.named_modules():
        for attribute, value in vars(module).items():
            if not attribute.startswith("_") or attribute in ("_forward_hooks", "_forward_pre_hooks"):
                yield from _search(value, ".".join(filter(None, (path, attribute))), seen, MAX_DEPTH)


def _search(value: Any, path: str, seen: set[int], depth: int) -> Iterator[tuple[str, nn.Module]]:
    if id(value) in seen or depth == 0:
        return
    seen.add(id(value))
    if isinstance(value, nn.Module):
        for inner, module in value.named_modules():
            seen.add(id(module))
            yield ".".join(filter(None, (path, inner))), module
            for attribute, held in vars(module).items():
                if not attribute.startswith("_"):
                    yield from _search(held, ".".join(filter(None, (path, inner, attribute))), seen, depth - 1)
        return
    for step, inner in _inside(value):
        yield from _search(inner, path + step, seen, depth - 1)


def _inside(value: Any) -> Iterator[tuple[str, Any]]:
    match value:
        case dict():
            yield from ((f"[{key!r}]", item) for key, item in value.items())
        case list() | tuple() | set() | frozenset():
            yield from ((f"[{number}]", item) for number, item in enumerate(value))
        case functools.partial():
            yield from (("()", item) for item in (value.func, value.args, value.keywords))
        case MethodType():
            yield "", value.__self__
        case FunctionType():
            cells = zip(value.__code__.co_freevars, value.__closure__ or (), strict=True)
            yield from ((f"<{name}>", cell.cell_contents) for name, cell in cells if _filled(cell))
        case _ if type(value).__module__.partition(".")[0] not in ("torch", "numpy", "builtins") and hasattr(value, "__dict__"):
            yield from ((f".{name}", item) for name, item in vars(value).items())


def _filled(cell: CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018 - reading is the question
    except ValueError:
        return False
    return True


def _running(target: Module, inputs: Inputs, modules: list[nn.Module]) -> set[int]:
    """Ids of those that a forward calls."""
    called: set[int] = set()
    hooks = [module.register_forward_hook(lambda module, *_: called.add(id(module))) for module in modules]
    try:
        if modules:
            target.seeded(inputs.call(), 0)
    finally:
        for hook in hooks:
            hook.remove()
    return called


def _failed(name: str, model: nn.Module, path: str, module: nn.Module, hidden: bool) -> CheckResult:
    kind = type(module).__name__
    where = Location(layer=(path or type(model).__name__)[:400], op=kind)
    if hidden:
        what = f"{kind} in '{path}' is in training mode and no registered submodule, so eval() never reaches it"
        return failed(name, what, REGISTER, where)
    if model.training:
        return failed(name, f"the model is in training mode, and so is {kind} in layer '{where.layer}'", CALL_EVAL, where)
    return failed(name, f"{kind} in layer '{where.layer}' stayed in training mode after eval()", OVERRIDE, where)
