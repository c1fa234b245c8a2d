"""What the reloaded program does when it is called: the same at each call, for each row alone, and nothing besides."""

import torch

from dropout_trainer.gate import rng
from dropout_trainer.gate.program import BATCHES, EXAMPLE, Subject
from dropout_trainer.gate.tolerance import difference
from dropout_trainer.gate.verdict import CheckResult, RefusedError, failed, passed

REPEATS = 8
TRAINING = "something is still in training mode or draws random numbers: see the graph check, and export after eval()"
COMPANIONS = "a row's answer must not depend on the rows beside it: use running statistics, LayerNorm or GroupNorm"


def batch_sizes(subject: Subject) -> CheckResult:
    """The program answers batches of 1, 2, the example's size and more with one finite row of logits each."""
    for rows in BATCHES:
        try:
            output = subject.run(subject.inputs(rows))
        except RefusedError as error:
            return failed("batch_sizes", error.evidence, error.remedy)
        except Exception as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            return failed("batch_sizes", f"a batch of {rows} raised: {lines[0][:200]}",
                          "export with a dynamic batch dimension and an example of at least 2 rows")
        if not output.isfinite().all():
            return failed("batch_sizes", f"a batch of {rows} finite rows gave NaN or infinity", "look for a division by zero")
    return passed("batch_sizes", f"batches of {', '.join(map(str, BATCHES))} rows are answered")


def repeat(subject: Subject) -> CheckResult:
    """Bitwise equal outputs of one call under different seeds of all random streams, with and without gradients."""
    for rows in BATCHES:
        batch = subject.inputs(rows)
        for gradients in (False, True):
            outputs = []
            for number in range(REPEATS):
                with rng.preserved(), torch.set_grad_enabled(gradients):
                    rng.seed(7919 * number)
                    outputs.append(subject.run(batch))
            changed = sum(output.numpy().tobytes() != outputs[0].numpy().tobytes() for output in outputs)
            if changed:
                mode = "with gradients" if gradients else "under no_grad"
                size = difference(torch.cat(outputs[1:]), outputs[0].repeat(REPEATS - 1, 1)).largest
                return failed("repeat", f"{changed} of {REPEATS} repeats of a batch of {rows} {mode} differ by up to {size:.3g}",
                              TRAINING)
    return passed("repeat", f"{REPEATS} repeats under different seeds are bitwise equal at {len(BATCHES)} batch sizes")


def untouched(subject: Subject) -> CheckResult:
    """A forward neither advances a random stream nor writes to a parameter, buffer or constant."""
    tensors = {**subject.module.state_dict(), **dict(subject.module.named_buffers())}
    before = {name: tensor.detach().clone() for name, tensor in tensors.items()}
    with rng.preserved():
        streams = rng.fingerprint()
        for gradients in (False, True):
            with torch.set_grad_enabled(gradients):
                subject.run(subject.inputs(EXAMPLE))
        drawn = rng.fingerprint() != streams
    if drawn:
        return failed("untouched", "a forward advanced a random stream", TRAINING)
    written = [name for name, tensor in tensors.items() if not _same(tensor, before[name])]
    if written:
        return failed("untouched", f"a forward wrote to '{written[0]}'", TRAINING)
    return passed("untouched", f"random streams and {len(tensors)} tensors are as they were")


def parity(subject: Subject) -> CheckResult:
    """The reloaded program answers the held-out inputs as the eager model in eval mode did."""
    found = difference(subject.evaluate(subject.heldout.input), subject.heldout.output)
    if not found.equal:
        return failed("parity", f"the program answers otherwise than the eager model in eval mode: {found}",
                      "export the model that was evaluated, in eval mode, and nothing that depends on its mode at export time")
    return passed("parity", f"{len(subject.heldout.input)} held-out rows: {found}")


def batch_invariance(subject: Subject) -> CheckResult:
    """A row is answered alike alone, in its batch, and among other rows."""
    batch = subject.inputs(EXAMPLE)
    with torch.no_grad():
        together = subject.run(batch)
        alone = torch.cat([subject.run(row) for row in torch.split(batch, 1)])
        order = torch.arange(EXAMPLE).flip(0)
        among_others = subject.run(torch.cat([batch[order], subject.probe(EXAMPLE + 3)]))[:EXAMPLE][order]
    for how, output in (("alone", alone), ("among other rows", among_others)):
        found = difference(output, together)
        if not found.equal:
            return failed("batch_invariance", f"a row is answered otherwise {how} than in its batch: {found}", COMPANIONS)
    return passed("batch_invariance", f"{EXAMPLE} rows alone and among others: {found}")


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return bool(torch.equal(torch.nan_to_num(one), torch.nan_to_num(other)))
