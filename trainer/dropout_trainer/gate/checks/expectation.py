"""Dropout is scaled right: on average a layer answers in training as it does in eval mode (Srivastava et al., JMLR 15, 2014).

Tried on each layer alone, because through a whole net the averages do not separate right from wrong. At a rate of one half
a rate and its complement look alike, so other rates are set first. Only for layers whose answer is linear in eval mode (an
average goes through nothing else), and that are not torch's own, which are known to be right.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dropout_api.verdict import CheckResult, Location
from dropout_trainer.gate import rng
from dropout_trainer.gate.checks.masks import compensated, masks
from dropout_trainer.gate.inputs import Call, Inputs
from dropout_trainer.gate.outputs import leaves, same_bits
from dropout_trainer.gate.target import Module, quiet
from dropout_trainer.gate.verdict import failed, not_applicable, passed

REMEDY = "divide what is kept by 1 - p in training, as nn.Dropout does, and do nothing to it in eval mode"
RATES = ("p", "rate", "drop_prob", "drop_rate", "dropout", "dropout_p", "drop", "prob", "keep_prob", "keep")
"""Names under which layers keep their rate."""
PROBE_RATE = 0.3
MIN_DRAWS, MAX_DRAWS = 64, 4096
TOLERANCE = 0.02
"""Smallest deviation of the slope from 1 that counts, where the draws allow to tell it."""
SIGMAS = 6.0
MAX_ELEMENTS = 1 << 16


@dataclass(frozen=True)
class Slope:
    """Regression of a layer's mean training answer on its eval answer; 1 when it is scaled right."""

    value: float
    error: float
    """Standard error."""
    draws: int

    @property
    def wrong(self) -> bool:
        return abs(self.value - 1) > max(TOLERANCE, SIGMAS * self.error)


def expectation(name: str, target: Module, inputs: Inputs) -> CheckResult:
    """For every layer of the user's own that is random in training and linear in eval mode, the slope is 1."""
    if any(isinstance(module, torch.jit.ScriptModule) for module in target.module.modules()):
        return not_applicable(name, "a scripted model's layers cannot be called one by one")
    try:
        model = copy.deepcopy(target.module).eval()
    except Exception as error:
        return not_applicable(name, f"the model cannot be copied ({type(error).__name__}), and this check changes rates")
    moved = _move_rates(model)
    measured: list[str] = []
    excused: list[str] = []
    for path, call in _calls(model, inputs):
        layer = model.get_submodule(path)
        slope = None if any(inner.startswith(path) for inner in excused) else _slope(layer, call)
        if slope is None:
            continue
        measured.append(path or type(model).__name__)
        if slope.wrong and _keeps_moments(layer, call):
            excused.append(path)
        elif slope.wrong:
            where = Location(layer=measured[-1], op=type(layer).__name__)
            what = f"{where.op} in layer '{where.layer}' answers {slope.value:.3g} times as much in training as in eval mode"
            return failed(name, f"{what}, on average over {slope.draws} draws (± {slope.error:.2g})", REMEDY, where)
    written_out = _written_out(name, model, inputs)
    if isinstance(written_out, CheckResult):
        return written_out
    measured += written_out
    if not measured:
        return not_applicable(name, "no layer besides torch's own is random in training and linear in eval mode")
    return passed(name, f"{', '.join(measured[:8])}: scaled right" + (f", at a rate of {PROBE_RATE} instead of 0.5" if moved else ""))


def _written_out(name: str, model: nn.Module, inputs: Inputs) -> CheckResult | list[str]:
    """The same for dropout that is written out in a forward. Gives the layers in which there is some that is right."""
    call = inputs.call(None if inputs.fixed_rows else min(inputs.rows, 8))
    try:
        _train(model)
        found = masks(model, call)
        model.eval()
        for (layer, source), kept in found.items():
            if abs(kept.mean - 1) > max(TOLERANCE, SIGMAS * kept.error) and not compensated(model, call, layer, kept.mean):
                what = f"a mask in layer '{layer}' ({source}) keeps {kept.mean:.3g} of what it is multiplied with"
                return failed(name, f"{what}, on average over {len(kept.values)} draws (± {kept.error:.2g})", REMEDY,
                              Location(layer=layer, op="aten.mul", source=source))
    except Exception:
        return []  # it does not run in training mode, which is another check's matter
    finally:
        model.eval()
    return [layer for layer, _ in found]


def _move_rates(model: nn.Module) -> int:
    moved = 0
    for module in model.modules():
        for name in RATES:
            if isinstance(vars(module).get(name), float) and vars(module)[name] == 0.5:
                setattr(module, name, PROBE_RATE)
                moved += 1
    return moved


def _calls(model: nn.Module, inputs: Inputs) -> list[tuple[str, Call]]:
    """Layers of the user's own with the first call that each of them gets in an eval forward, innermost first."""
    calls: dict[str, Call] = {}
    hooks = []
    for path, module in model.named_modules():
        if type(module).__module__.startswith(("torch.nn.", "torch.jit.")):
            continue

        def keep(_: nn.Module, args: Any, kwargs: Any, path: str = path) -> None:
            calls.setdefault(path, Call(args, kwargs).copy())

        hooks.append(module.register_forward_pre_hook(keep, with_kwargs=True))
    try:
        with torch.no_grad(), quiet(), rng.preserved():
            Module(model).answer(inputs.call(min(inputs.rows, 4) if not inputs.fixed_rows else None))
    finally:
        for hook in hooks:
            hook.remove()
    small = ((path, call) for path, call in calls.items() if sum(tensor.numel() for tensor in call.tensors) <= MAX_ELEMENTS)
    return sorted(small, key=lambda item: -item[0].count(".") if item[0] else 1)


def _slope(layer: nn.Module, call: Call) -> Slope | None:
    """None for a layer that is not random in training, or not linear in eval mode."""
    try:
        with torch.no_grad(), quiet(), rng.preserved():
            probe = call.map(lambda tensor: torch.ones_like(tensor) if tensor.is_floating_point() else tensor)
            if not _random(layer, probe):
                return None
            layer.eval()
            if not _linear(layer, probe):
                return None
            return _measure(layer, probe)
    except Exception:
        return None  # it does not take such inputs alone
    finally:
        layer.eval()


def _answer(layer: nn.Module, call: Call) -> Tensor | None:
    found = [leaf for leaf in leaves(Module(layer).answer(call.copy())).values() if isinstance(leaf, Tensor)]
    return found[0].double() if found and found[0].is_floating_point() else None


def _random(layer: nn.Module, call: Call) -> bool:
    _train(layer)
    answers = []
    for number in range(4):
        rng.seed(number)
        answers.append(_answer(layer, call))
    return any(not same_bits(answer, answers[0]) for answer in answers)


def _train(layer: nn.Module) -> None:
    """Training mode, but for norms, whose own randomness is the batch."""
    layer.train()
    for module in layer.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase):
            module.eval()


def _linear(layer: nn.Module, call: Call) -> bool:
    """Whether the eval answer is affine in the float inputs or, where there are none, in the parameters."""
    floats = any(tensor.is_floating_point() for tensor in call.tensors)
    if not floats:
        return _linear_in_parameters(layer, call)
    noise = torch.Generator().manual_seed(3)
    offset = call.map(lambda t: torch.randn(t.shape, generator=noise).to(t.dtype) if t.is_floating_point() else t)
    other = call.map(lambda t: torch.randn(t.shape, generator=noise).to(t.dtype) if t.is_floating_point() else t)

    def at(one: float, two: float) -> Tensor | None:
        others = iter(other.tensors)
        return _answer(layer, offset.map(lambda t: _sum(t, next(others), one, two)))

    zero, first, second, both = at(0, 0), at(1, 0), at(0, 1), at(1.5, -2)
    if zero is None or first is None or second is None or both is None:
        return False
    return _close(both - zero, 1.5 * (first - zero) - 2 * (second - zero))


def _sum(one: Tensor, other: Tensor, a: float, b: float) -> Tensor:
    return a * one + b * other if one.is_floating_point() else one


def _linear_in_parameters(layer: nn.Module, call: Call) -> bool:
    first = _answer(layer, call)
    for parameter in layer.parameters():
        parameter.mul_(2)
    second = _answer(layer, call)
    for parameter in layer.parameters():
        parameter.div_(2)
    return first is not None and second is not None and bool((first != 0).any()) and _close(second, 2 * first)


def _close(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and bool(torch.allclose(one, other, rtol=1e-3, atol=1e-4 * float(other.abs().max()) + 1e-7))


def _measure(layer: nn.Module, probe: Call) -> Slope | None:
    nothing = probe.map(lambda tensor: torch.zeros_like(tensor) if tensor.is_floating_point() else tensor)
    floats = any(tensor.is_floating_point() for tensor in probe.tensors)
    expected = _answer(layer, probe)
    base = _answer(layer, nothing) if floats else None
    if expected is None:
        return None
    signal = expected - base if base is not None else expected
    power = float((signal * signal).sum())
    if power == 0:
        return None
    _train(layer)
    return _regress(lambda: _projection(layer, probe, expected, signal, power))


def _projection(layer: nn.Module, probe: Call, expected: Tensor, signal: Tensor, power: float) -> float:
    answer = _answer(layer, probe)
    if answer is None or answer.shape != expected.shape:
        raise ValueError("another shape in training")
    return 1 + float(((answer - expected) * signal).sum()) / power


def _regress(draw: Callable[[], float]) -> Slope:
    total = squares = 0.0
    for count in range(1, MAX_DRAWS + 1):
        rng.seed(count)
        value = draw()
        total, squares = total + value, squares + value * value
        if count >= MIN_DRAWS and count & (count - 1) == 0:
            mean = total / count
            error = math.sqrt(max(squares / count - mean * mean, 0.0) / count)
            if SIGMAS * error < TOLERANCE:
                break
    return Slope(mean, error, count)


def _keeps_moments(layer: nn.Module, call: Call) -> bool:
    """Whether the layer is alpha dropout (Klambauer et al., arXiv 1706.02515): it answers something to zeros, and keeps the
    mean and the variance of a standard normal input."""
    with torch.no_grad(), quiet(), rng.preserved():
        rng.seed(1)
        _train(layer)
        try:
            nothing = _answer(layer, call.map(lambda t: torch.zeros_like(t) if t.is_floating_point() else t))
            if nothing is None or not bool(nothing.any()):
                return False
            drawn = [_answer(layer, call.map(lambda t: torch.randn_like(t) if t.is_floating_point() else t)) for _ in range(MIN_DRAWS)]
        finally:
            layer.eval()
    values = torch.cat([answer.flatten() for answer in drawn if answer is not None])
    return abs(float(values.mean())) < 0.1 and abs(float(values.std()) - 1) < 0.1
