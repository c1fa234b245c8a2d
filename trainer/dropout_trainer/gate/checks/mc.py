"""The checks of an MC-dropout program, the other way round: it must be random, by dropout alone, and around the eval program."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from dropout_api.verdict import CheckResult, Location
from dropout_trainer.gate.averaged import Averaged
from dropout_trainer.gate.candidate import Predictor
from dropout_trainer.gate.checks.graph import live_dropouts
from dropout_trainer.gate.inputs import Call, Inputs
from dropout_trainer.gate.ops import op_name
from dropout_trainer.gate.outputs import Outputs, difference, identical, same_bits
from dropout_trainer.gate.target import Program
from dropout_trainer.gate.verdict import failed, passed

PASSES = 32
COMPARED = 4
"""Recorded batches that are compared."""
DEVIATIONS = 4.0
"""Most that the mean of the passes may lie from the eval output, in standard deviations of a single pass, as root mean square over rows
and outputs. The passes' own sampling leaves 1 / √PASSES = 0.18 of it; what a sound net's curvature adds was below 1.2 for trained
perceptrons, recurrent, residual and normalised nets and transformers, with rates from 0.001 to 0.9. A scale that is forgotten can stay
below it, too: that is for the exact comparison to find."""
ROUNDING = 1e-3
"""Of the output's size, where passes hardly differ."""
LEAVE_OUT = "keep every random draw of training but dropout out of the model, or leave spec.export.mcPasses out"
RENAMED = "export it in training mode, with norms in eval mode, from a model whose dropout rates are above 0"
SAME_MODEL = "export both programs from the same model, one right after the other"
SCALE = "let dropout divide what it keeps by 1 - p, as nn.Dropout does, and export both programs from the same model"


@dataclass(frozen=True)
class McSubject:
    """The MC-dropout program and what it must be near to."""

    program: Predictor
    evaluated: Program
    """The eval program of the same candidate."""
    inputs: Inputs
    recorded: Sequence[tuple[Call, Outputs]]
    """Calls, and what the eager model answered to them in eval mode."""
    sizes: Tensor | None = None
    """Of values: the unit of each output (`Heldout.sizes`)."""

    @cached_property
    def passes(self) -> Tensor:
        """Answers [PASSES, rows, outputs] to the example, each pass under a seed of its own."""
        return torch.stack([self.program.seeded(self.inputs.example, number)["output"].double() for number in range(PASSES)])


def mc_graph(name: str, subject: McSubject) -> CheckResult:
    """Dropout is on and nothing else is in training mode: no other random draw, no norm over the batch, no buffer that is written."""
    dropouts, others = live_dropouts(subject.program)
    if others:
        (what, _), _, where = others[0]
        return failed(name, f"{what} in layer '{where.layer}' ({where.source}), which is not dropout", LEAVE_OUT, where)
    if not dropouts:
        return failed(name, "no op is dropout that is on: this is an eval program", RENAMED)
    written = sorted(set(subject.program.decomposed.graph_signature.buffers_to_mutate.values()))
    if written:
        where = Location(layer=written[0].rpartition(".")[0] or "the model", op="copy_")
        return failed(name, f"the program writes to buffer '{written[0]}' at each call", LEAVE_OUT, where)
    layers = ", ".join(dict.fromkeys(where.layer for _, where in dropouts[:8]))
    return passed(name, f"{len(dropouts)} ops are dropout that is on ({layers}), and nothing else is in training mode")


def mc_varies(name: str, subject: McSubject) -> CheckResult:
    """Passes under different seeds differ."""
    varied = sum(not torch.equal(answer, subject.passes[0]) for answer in subject.passes)
    if not varied:
        return failed(name, f"{PASSES} passes under different seeds are equal: the answer does not depend on its dropout", RENAMED)
    return passed(name, f"{varied} of {PASSES - 1} passes under other seeds differ from the first")


def mc_repeats(name: str, subject: McSubject) -> CheckResult:
    """Passes under the same seed are bitwise equal, for batches of any size."""
    for rows in subject.inputs.sizes():
        call = subject.inputs.call(rows)
        for number in range(2):
            if not identical(subject.program.seeded(call, number), subject.program.seeded(call, number)):
                return failed(name, f"two passes of {rows} rows under one seed differ: not all of its draws are torch's", LEAVE_OUT)
    return passed(name, f"passes under one seed are bitwise equal for {', '.join(map(str, subject.inputs.sizes()))} rows")


def mc_parity(name: str, subject: McSubject) -> CheckResult:
    """It has the eval program's weights and buffers, bit for bit."""
    mine, theirs = subject.program.program.state_dict, subject.evaluated.program.state_dict
    other = sorted(key for key in mine.keys() | theirs.keys() if not same_bits(mine.get(key), theirs.get(key)) or key not in mine)
    if other:
        more = f" and {len(other) - 1} more" if other[1:] else ""
        return failed(name, f"'{other[0]}'{more} is not what the eval program has", SAME_MODEL)
    return passed(name, f"{len(mine)} weights and buffers are those of the eval program")


def mc_mean(name: str, subject: McSubject) -> CheckResult:
    """With the average in place of each draw it answers as the eager model in eval mode, and the mean of its passes is near to that."""
    averaged = Averaged(subject.program.program, outputs=subject.program.outputs)
    for call, expected in subject.recorded[:COMPARED]:
        found = difference(averaged.seeded(call, 1), expected, sizes=subject.sizes)
        if not found.equal:
            return failed(name, f"with its dropout averaged it answers otherwise than the model in eval mode: {found}", SCALE)
        if not identical(averaged.seeded(call, 1), averaged.seeded(call, 2)):
            return failed(name, "with its dropout averaged it still varies with the seed", LEAVE_OUT)
    if any("alpha" in op_name(node.target) for node, _ in live_dropouts(subject.program)[0]):
        return passed(name, "with its dropout averaged it answers as in eval mode (alpha dropout keeps the mean of standard inputs alone)")
    unit = torch.ones(()) if subject.sizes is None else subject.sizes
    expected = subject.evaluated.run(subject.inputs.example)["output"].double() / unit
    passes = subject.passes / unit
    away, spread = _rms(passes.mean(0) - expected), _rms(passes.std(0))
    size = _rms(expected) if subject.sizes is None else 1.0
    told = f"the mean of {PASSES} passes is {away:.3g} from the eval output, a pass deviates by {spread:.3g}"
    if away > DEVIATIONS * spread + ROUNDING * size:
        return failed(name, told, SCALE)
    return passed(name, f"with its dropout averaged it answers as in eval mode; {told}")


def _rms(values: Tensor) -> float:
    return float(values.square().mean().sqrt())


MC_CHECKS: dict[str, Callable[[str, McSubject], CheckResult]] = {
    "mc_graph": mc_graph, "mc_parity": mc_parity, "mc_varies": mc_varies, "mc_repeats": mc_repeats, "mc_mean": mc_mean,
}
"""In the order in which they are made and told: weights before passes, which might write to them."""
