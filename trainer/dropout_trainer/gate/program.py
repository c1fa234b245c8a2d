"""The reloaded program: how the gate runs it, and with which inputs."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch.export import ExportedProgram

from dropout_api.candidate import CandidateConfig
from dropout_trainer.gate import archive
from dropout_trainer.gate.candidate import Heldout
from dropout_trainer.gate.verdict import RefusedError

EXAMPLE = 16
"""Rows that stand for a usual batch; larger ones are tried too."""
BATCHES = (1, 2, EXAMPLE, 2 * EXAMPLE + 5)


@dataclass(frozen=True)
class Subject:
    """What the checks look at: a program whose archive was validated, its attested config and its held-out set."""

    program: ExportedProgram
    config: CandidateConfig
    heldout: Heldout

    @cached_property
    def module(self) -> torch.nn.Module:
        """The program as a callable. It has neither train() nor eval(): its mode was fixed when it was exported."""
        with quiet():
            return self.program.module()

    @cached_property
    def decomposed(self) -> ExportedProgram:
        """The program in core ATen ops, where every dropout that is off has vanished."""
        with quiet(), torch.no_grad():
            decomposed: ExportedProgram = self.program.run_decompositions()
            return decomposed

    def run(self, batch: torch.Tensor) -> torch.Tensor:
        """Outputs [N, classes] for inputs [N, ...]. Raises RefusedError when the program answers anything else."""
        output = self.module(batch.clone())  # an op in place must not change the input that the next call repeats
        expected = [len(batch), self.config.classes]
        if not isinstance(output, torch.Tensor) or list(output.shape) != expected:
            what = list(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
            raise RefusedError(f"{len(batch)} rows were answered with {what}, not {expected}", "return logits [batch, classes]")
        return output.detach().to(torch.float32)

    def evaluate(self, rows: torch.Tensor, batch_size: int = 64) -> torch.Tensor:
        """Outputs [N, classes] for any number of rows, without gradients."""
        with torch.no_grad():
            return torch.cat([self.run(batch) for batch in torch.split(rows, batch_size)])

    def probe(self, rows: int) -> torch.Tensor:
        """Generated inputs [rows, ...]: finite, non-zero and of varied scale, or integers in the held-out range. The same each time."""
        generator = torch.Generator().manual_seed(20_240_229 + rows)
        shape = (rows, *self.config.input_shape)
        if self.config.input_dtype == "int64":
            low, high = int(self.heldout.input.min()), int(self.heldout.input.max())
            return torch.randint(low, high + 1, shape, generator=generator)
        noise = torch.randn(shape, generator=generator)
        scales = torch.tensor([0.1, 1.0, 3.0])[torch.arange(rows) % 3].reshape(rows, *[1] * len(self.config.input_shape))
        spread = self.heldout.input.std().clamp(min=1e-3)
        return (noise + 0.1 * noise.sign()) * scales * spread + self.heldout.input.mean()

    def inputs(self, rows: int) -> torch.Tensor:
        """[rows, ...]: real ones where the held-out set suffices, for every second row, generated ones elsewhere."""
        batch = self.probe(rows)
        real = self.heldout.input[: (rows + 1) // 2]
        batch[: len(real)] = real
        return batch


def load(path: Path) -> ExportedProgram:
    """The program at `path`, which is validated first. Raises RefusedError when it may not or cannot be loaded."""
    archive.validate(path)
    try:
        with quiet():
            return torch.export.load(path)
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise RefusedError(f"torch {torch.__version__} cannot load the program ({lines[0][:200]})",
                      "export with the torch version of the verifier's image, using torch's own ops") from None


@contextmanager
def quiet() -> Iterator[None]:
    """torch warns about its own deprecated internals while it copies a graph; nobody who reads the log can act on that."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", UserWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        yield
