"""The program answers as the eager model in eval mode does, each with seeds of its own."""

from collections.abc import Sequence

from torch import Tensor

from dropout_api.verdict import CheckResult
from dropout_trainer.gate.inputs import Call
from dropout_trainer.gate.outputs import Difference, Outputs, difference
from dropout_trainer.gate.target import Target
from dropout_trainer.gate.verdict import failed, passed

REMEDY = "export the model that was evaluated, in eval mode, and nothing that depends on its mode at export time"


def parity(name: str, program: Target, recorded: Sequence[tuple[Call, Outputs]], sizes: Tensor | None = None) -> CheckResult:
    """`recorded` are calls and what the eager model answered to them in eval mode, under other seeds than here; `sizes` as for
    `difference`."""
    worst = Difference()
    for number, (call, expected) in enumerate(recorded):
        found = difference(program.seeded(call, 1000 + number), expected, sizes=sizes)
        if not found.equal:
            return failed(name, f"{program.title} answers otherwise than the eager model in eval mode: {found}", REMEDY)
        worst = max(worst, found, key=lambda difference: difference.largest)
    return passed(name, f"{len(recorded)} calls: {worst}")
