"""The same call gives the same bits, whatever the seeds of torch, numpy and python, the clock, the batch size, and with or
without gradients."""

from collections.abc import Iterator

from dropout_api.verdict import CheckResult, Location
from dropout_trainer.gate.inputs import Call, Inputs
from dropout_trainer.gate.outputs import difference, identical
from dropout_trainer.gate.target import Target
from dropout_trainer.gate.verdict import failed, passed

REPEATS = 8
FEWER = 3
"""Repeats at batch sizes other than the example's."""
REMEDY = "something is still in training mode or draws random numbers: make it depend on self.training, and call eval()"
OUTSIDE = (
    "the op draws nothing itself, so something it is given differs: numbers from numpy, random or time, a counter, or a buffer that "
    "each forward writes; use or write it only while self.training is true"
)


def repeat(name: str, target: Target, inputs: Inputs) -> CheckResult:
    """Bitwise equal outputs of one call under different seeds and times."""
    for rows, gradients in _cases(inputs):
        call = inputs.call(rows, seed=rows % 7)
        repeats = REPEATS if rows == inputs.rows else FEWER
        answers = [target.seeded(call, number, gradients) for number in range(repeats)]
        changed = [number for number, answer in enumerate(answers) if not identical(answer, answers[0])]
        if changed:
            how = f"{len(changed)} of {repeats - 1} repeats of a batch of {rows} {'with gradients' if gradients else 'under no_grad'}"
            size = max(difference(answers[number], answers[0]).largest for number in changed)
            where, outside = _place(target, call, changed, gradients)
            place = f"; first in {where}" if where else ""
            return failed(name, f"{how} differ, by up to {size:.3g}{place}", OUTSIDE if outside else REMEDY, where)
    sizes = ", ".join(map(str, inputs.sizes()))
    return passed(name, f"repeats under {REPEATS} seeds are bitwise equal for {sizes} rows, with and without gradients")


def _cases(inputs: Inputs) -> Iterator[tuple[int, bool]]:
    sizes = sorted(inputs.sizes(), key=lambda rows: rows != inputs.rows)
    return ((rows, gradients) for rows in sizes for gradients in (False, True))


def _place(target: Target, call: Call, changed: list[int], gradients: bool) -> tuple[Location | None, bool]:
    for number in changed:
        found = target.place((call, call), (0, number), gradients)
        if found:
            return found.where, found.outside
    return None, False
