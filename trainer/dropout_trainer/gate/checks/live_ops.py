"""The ops that a live model runs in eval mode, watched as they run: sees models that cannot be exported, and the branches
that an export leaves behind."""

from typing import Any

from torch._ops import OpOverload

from dropout_api.verdict import CheckResult, Location
from dropout_trainer.gate.inputs import Inputs
from dropout_trainer.gate.ops import Finding, live
from dropout_trainer.gate.target import Module
from dropout_trainer.gate.trace import Step, watching
from dropout_trainer.gate.verdict import failed, passed


def live_ops(name: str, target: Module, inputs: Inputs) -> CheckResult:
    """No op that runs is dropout that is on, a norm over the batch, or a random draw; with and without gradients."""
    count = 0
    for rows, gradients in [*((rows, False) for rows in inputs.sizes()), (inputs.rows, True), (inputs.sizes()[-1], True)]:
        steps: list[Step] = []
        call = inputs.call(rows)
        with watching(target.module, steps.append):
            target.seeded(call, 0, gradients)
        count = max(count, len(steps))
        found = next(((step.where, finding) for step in steps if (finding := _finding(step.target, step.given))), None)
        if found:
            return _failed(name, *found, rows, gradients)
    return passed(name, f"{count} ops run in a forward, none in training mode")


def _finding(target: Any, given: dict[str, Any]) -> Finding | None:
    if not isinstance(target, OpOverload) or given.get("running_mean", 0) is None:
        return None  # a norm without running statistics may be instance norm: batch_invariance tells
    if given.get("generator") is not None:
        return None  # one that is seeded in each call gives the same again: source_repeat tells
    return live(target, given)


def _failed(name: str, where: Location, finding: Finding, rows: int, gradients: bool) -> CheckResult:
    what, remedy = finding
    source = f" ({where.source})" if where.source else ""
    how = f"a batch of {rows}, {'with gradients' if gradients else 'under no_grad'}"
    return failed(name, f"{what} in layer '{where.layer}'{source}: {how}", remedy, where)
