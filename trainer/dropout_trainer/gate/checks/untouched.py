"""A forward leaves no trace: no random stream moves, no parameter, buffer or constant changes, nor does any input."""

from torch import Tensor

from dropout_api.verdict import CheckResult, Location
from dropout_trainer.gate import rng
from dropout_trainer.gate.inputs import Inputs
from dropout_trainer.gate.outputs import same_bits
from dropout_trainer.gate.target import Target
from dropout_trainer.gate.verdict import failed, passed

DRAWS = "something draws random numbers in eval mode: make it depend on self.training"
WRITES = "a layer updates its statistics or weights in eval mode: do that only while self.training is true, and call eval()"


def untouched(name: str, target: Target, inputs: Inputs) -> CheckResult:
    """Random streams, parameters, buffers and constants are the same after forwards with and without gradients."""
    before = {key: tensor.detach().clone() for key, tensor in target.tensors().items()}
    own = [generator.get_state() for generator in target.generators()]
    with rng.preserved():
        streams = rng.fingerprint()
        for gradients in (False, True):
            target.run(inputs.call(), gradients)
        drawn = rng.fingerprint() != streams
    own_drawn = [index for index, generator in enumerate(target.generators()) if not same_bits(generator.get_state(), own[index])]
    if drawn or own_drawn:
        return failed(name, f"a forward advanced {'a global random stream' if drawn else 'a generator that the model holds'}", DRAWS)
    written = _written(before, dict(target.tensors()))
    if written:
        where = Location(layer=written[0].rpartition(".")[0] or target.title, op="copy_")
        return failed(name, f"a forward wrote to '{written[0]}'" + (f" and {len(written) - 1} more" if written[1:] else ""), WRITES, where)
    return passed(name, f"random streams and {len(before)} tensors are as they were")


def _written(before: dict[str, Tensor], after: dict[str, Tensor]) -> list[str]:
    return [key for key, tensor in after.items() if key not in before or not same_bits(tensor.detach(), before[key])]
