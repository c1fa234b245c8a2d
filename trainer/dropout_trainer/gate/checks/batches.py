"""Rows and their companions: batches of any size are answered, and a row's answer does not depend on the rows beside it."""

import torch
from torch import Tensor

from dropout_api.verdict import CheckResult
from dropout_trainer.gate.inputs import Call, Inputs
from dropout_trainer.gate.outputs import Difference, Outputs, difference, finite
from dropout_trainer.gate.target import Target
from dropout_trainer.gate.verdict import RefusedError, failed, not_applicable, passed

DYNAMIC = "export with a dynamic batch dimension and an example of at least 2 rows"
COMPANIONS = "a row's answer must not depend on the rows beside it: use running statistics, LayerNorm or GroupNorm"
NO_ROWS = "no dimension of the inputs counts rows"


def batch_sizes(name: str, target: Target, inputs: Inputs) -> CheckResult:
    """Batches of one row, two, the example's number and more are answered, with one answer for each row."""
    if not inputs.batched:
        return not_applicable(name, NO_ROWS)
    if inputs.fixed_rows:
        return not_applicable(name, f"the number of rows is fixed at {inputs.rows}")
    for rows in inputs.sizes():
        try:
            answer = target.run(inputs.call(rows))
        except RefusedError as error:
            return failed(name, error.evidence, error.remedy)
        except Exception as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            return failed(name, f"a batch of {rows} raised: {lines[0][:200]}", DYNAMIC)
        if not finite(answer) and finite(target.run(inputs.call())):
            return failed(name, f"a batch of {rows} finite rows gave NaN", "look for a division by zero, as by a batch's own variance")
    return passed(name, f"batches of {', '.join(map(str, inputs.sizes()))} rows are answered")


def batch_invariance(name: str, target: Target, inputs: Inputs) -> CheckResult:
    """A row is answered alike alone, in its batch, in another order, and among other rows."""
    if not inputs.batched:
        return not_applicable(name, NO_ROWS)
    rows = max(inputs.rows, 2) if not inputs.fixed_rows else inputs.rows
    if rows == 1:
        return not_applicable(name, "the program takes one row at a time")
    batch = inputs.call(rows)
    together = target.run(batch)
    names = _row_outputs(together, rows, inputs)
    if not names:
        return not_applicable(name, f"no output has a row for each of the {rows} input rows")
    for how, other, kept in _companies(inputs, batch, rows):
        found = _compared(target, other, together, names, kept, inputs)
        if not found.equal:
            place = target.place(_pair(inputs, batch, rows), (0, 0), rows=rows)
            at = f"; first in {place.where}" if place else ""
            what = f"a row is answered otherwise {how} than in its batch: {found}{at}"
            return failed(name, what, COMPANIONS, place.where if place else None)
    return passed(name, f"{rows} rows are answered alike alone, in another order and among others")


def _companies(inputs: Inputs, batch: Call, rows: int) -> list[tuple[str, Call, Tensor]]:
    """Ways to change a row's company: the call, and for each of the batch's rows its index in that call (-1: not in it)."""
    reverse = torch.arange(rows).flip(0)
    cases = [("in another order", inputs.take(batch, reverse), reverse)]
    others = inputs.call(rows, seed=11)
    half = torch.arange(rows)[: (rows + 1) // 2]
    mixed = inputs.join(inputs.take(batch, half), inputs.take(others, torch.arange(rows - len(half))))
    cases.append(("among other rows", mixed, torch.where(torch.arange(rows) < len(half), torch.arange(rows), -1)))
    if not inputs.fixed_rows:
        for row in sorted({0, rows // 2, rows - 1}):
            index = torch.full((rows,), -1)
            index[row] = 0
            cases.append(("alone", inputs.take(batch, torch.tensor([row])), index))
        index = torch.arange(rows)
        cases.append(("among more rows", inputs.join(batch, inputs.call(rows + 3, seed=5)), index))
    return cases


def _compared(target: Target, call: Call, together: Outputs, names: list[str], index: Tensor, inputs: Inputs) -> Difference:
    dim = inputs.batch_dim or 0
    answer = target.run(call)
    kept = (index >= 0).nonzero().flatten()
    expected = {name: together[name].index_select(dim, kept) for name in names}
    actual = {name: answer[name].index_select(dim, index[kept]) if name in answer and answer[name].dim() > dim else None for name in names}
    return _scaled(actual, expected, {name: together[name] for name in names}, target.rounding)


def _scaled(actual: Outputs, expected: Outputs, whole: Outputs, rounding: float) -> Difference:
    """A difference is measured by the size of the whole batch's output, not of one row of it."""
    found = difference(actual, expected, rounding)
    if found.equal or not isinstance(whole.get(found.name), Tensor):
        return found
    allowed = difference({found.name: whole[found.name]}, {found.name: whole[found.name]}, rounding).allowed
    return Difference(found.name, found.largest, max(found.allowed, allowed), found.row)


def _row_outputs(answer: Outputs, rows: int, inputs: Inputs) -> list[str]:
    dim = inputs.batch_dim or 0
    return [name for name, leaf in answer.items() if isinstance(leaf, Tensor) and leaf.dim() > dim and leaf.shape[dim] == rows]


def _pair(inputs: Inputs, batch: Call, rows: int) -> tuple[Call, Call]:
    """Two batches that share their first row alone."""
    first = torch.tensor([0])
    others = inputs.call(rows, seed=11)
    return batch, inputs.join(inputs.take(batch, first), inputs.take(others, torch.arange(1, rows)))
