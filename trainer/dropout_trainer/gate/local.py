"""The gate for a model at hand: a live module, or an exported program in a file, without a training pod or a registry."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from dropout_api.verdict import CheckResult
from dropout_trainer.gate import programs
from dropout_trainer.gate.checks.positive_control import mode_cycle
from dropout_trainer.gate.gate import Recorded, attempt, examine_module, examine_program
from dropout_trainer.gate.inputs import Call, Inputs
from dropout_trainer.gate.layout import batch_dim
from dropout_trainer.gate.target import Module, Program
from dropout_trainer.gate.verdict import GateReport, RefusedError, failed, not_applicable, passed

RECORDED_CALLS = 3
REQUIRED = "write forward() without branches and shapes that depend on values, or do not require the export"
BatchDim = int | None | Literal["auto"]


@dataclass(frozen=True)
class Options:
    """How a model at hand is judged."""

    batch_dim: BatchDim = "auto"
    """Dimension of the inputs that counts rows; None where there is none; auto: 0, unless the layers tell otherwise."""
    as_is: bool = False
    """Judge a live module in the mode that it is in, instead of after eval()."""
    require_export: bool = False
    """Whether a module that torch.export cannot take fails; otherwise the module itself is what was judged."""


def judge_module(module: nn.Module, example: Call, options: Options = Options()) -> GateReport:
    """Everything that can be measured of a live module and of the program that would be exported from it.

    The module's mode, parameters and buffers are the same afterwards, as far as its own forward leaves them alone.
    """
    module = plain(module)
    flags = {part: part.training for part in module.modules()}
    try:
        if not options.as_is:
            mode_cycle(module)
        return GateReport(checks=_judged(module, example, options))
    finally:
        for part, training in flags.items():
            part.training = training


def plain(module: nn.Module) -> nn.Module:
    """The module that torch.compile wraps, or the module itself."""
    original = getattr(module, "_orig_mod", None)
    return original if isinstance(original, nn.Module) else module


def _judged(module: nn.Module, example: Call, options: Options) -> list[CheckResult]:
    refusal = attempt("example", lambda: _answered(module, example))
    if refusal.outcome is not refusal.outcome.PASSED:
        return [refusal]
    dim = batch_dim(module, example) if options.batch_dim == "auto" else options.batch_dim
    inputs = Inputs(example, dim)
    inputs = replace(inputs, fixed_rows=not _takes_other_sizes(module, inputs))
    return [*examine_module(module, inputs), *_exported(module, inputs, options)]


def _answered(module: nn.Module, example: Call) -> CheckResult:
    answer = Module(module).seeded(example, 0)
    tensors = [leaf for leaf in answer.values() if isinstance(leaf, torch.Tensor)]
    if not tensors:
        raise RefusedError("the model answers its example with no tensor", "return tensors, or containers of them")
    return passed("example", f"answered with {len(tensors)} tensors")


def _takes_other_sizes(module: nn.Module, inputs: Inputs) -> bool:
    """Whether the model takes one row more than its example has. A model that takes one size only is judged at that."""
    if not inputs.batched:
        return True
    for rows in (inputs.rows + 1, 2 * inputs.rows):
        try:
            Module(module).seeded(inputs.call(rows), 0)
        except Exception:  # noqa: S112 - which sizes it takes is the question
            continue
        return True
    return False


def _exported(module: nn.Module, inputs: Inputs, options: Options) -> list[CheckResult]:
    try:
        program = Program(programs.export(module, inputs))
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        why = f"torch.export cannot take it ({type(error).__name__}: {lines[0][:200]})"
        if options.require_export:
            return [failed("export", why, REQUIRED)]
        return [not_applicable("export", f"{why}; the module itself was judged")]
    fixed = programs.inputs_of(program.program).fixed_rows
    inputs = replace(inputs, fixed_rows=inputs.fixed_rows or fixed)
    checks = examine_program(program, inputs, _recorded(module, inputs), strangers=True)
    return [passed("export", "torch.export takes it"), *checks]


def _recorded(module: nn.Module, inputs: Inputs) -> Recorded:
    calls = [inputs.call(seed=number) for number in range(RECORDED_CALLS)]
    return [(call, Module(module).seeded(call, 50 + number)) for number, call in enumerate(calls)]


def judge_program(path: Path, example: Call | None = None) -> GateReport:
    """Everything that can be measured of a .pt2 alone. Without the module that it came from, that is no check of the module."""
    try:
        exported = programs.load(path)
        inputs = programs.inputs_of(exported)
    except RefusedError as error:
        return GateReport(checks=[failed("archive", error.evidence, error.remedy)])
    if example is not None:
        inputs = replace(inputs, example=example)
    archive = passed("archive", "the program's archive holds tensors and torch's own ops, and no code")
    source = not_applicable("module_walk", "no live module: what was exported is what is judged")
    return GateReport(checks=[archive, *examine_program(Program(exported), inputs), source])


def as_call(example: Any) -> Call:
    """An example as people give it: a tensor, a tuple of arguments, or a dictionary of keyword arguments."""
    if isinstance(example, Call):
        return example
    if isinstance(example, dict):
        return Call(kwargs=example)
    if isinstance(example, tuple | list):
        return Call(args=tuple(example))
    return Call(args=(example,))
