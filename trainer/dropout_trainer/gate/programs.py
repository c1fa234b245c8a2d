"""Exported programs: made from a live module, and loaded from a file that was validated first."""

import inspect
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from dropout_trainer.gate.formats import pt2
from dropout_trainer.gate.inputs import Call, Inputs
from dropout_trainer.gate.target import quiet
from dropout_trainer.gate.verdict import RefusedError


def load(path: Path) -> ExportedProgram:
    """The program at `path`, which is validated first. Raises RefusedError when it may not or cannot be loaded."""
    pt2.validate(path)
    return load_validated(path)


def load_validated(path: Path) -> ExportedProgram:
    """As `load`, for a file that `pt2.validate` has passed, or that this process wrote itself."""
    try:
        with quiet():
            return torch.export.load(path)
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise RefusedError(f"torch {torch.__version__} cannot load the program ({lines[0][:200]})",
                           "export with the torch version of the verifier's image, using torch's own ops") from None


def export(module: nn.Module, inputs: Inputs) -> ExportedProgram:
    """The program of `module` in the mode that it is in, with any number of rows where the inputs have rows, written and read again.

    Raises what torch.export raises, which can be anything.
    """
    example = inputs.call(max(inputs.rows, 2)) if inputs.batched and not inputs.fixed_rows else inputs.example
    shapes = _dynamic(module, example, inputs) if inputs.batched and not inputs.fixed_rows else None
    with torch.no_grad(), quiet(), torch.compiler.set_stance("force_eager"):
        program = torch.export.export(module, example.copy().args, example.copy().kwargs or None, dynamic_shapes=shapes)
        with tempfile.TemporaryDirectory(prefix="gate-") as folder:
            path = Path(folder) / "program.pt2"
            torch.export.save(program, path)
            return load_validated(path)


def _dynamic(module: nn.Module, example: Call, inputs: Inputs) -> dict[str, Any]:
    """For each argument by its name in forward(), which dimension of its tensors may change."""
    def shape(leaf: Any) -> Any:
        counts = isinstance(leaf, Tensor) and inputs.counts(leaf, example)
        return {inputs.batch_dim: torch.export.Dim.AUTO} if counts else None

    bound = inspect.signature(module.forward).bind(*example.args, **example.kwargs)
    return {name: pytree.tree_map(shape, argument) for name, argument in bound.arguments.items()}


def inputs_of(program: ExportedProgram) -> Inputs:
    """Inputs made from the example that a program carries. Raises RefusedError when it carries none."""
    if not program.example_inputs:
        raise RefusedError("the program carries no example inputs to try it with", "export with example inputs")
    args, kwargs = program.example_inputs
    dims = _dynamic_dims(program)
    first = next((dim for dim in dims if dim is not None), None)
    return Inputs(Call(tuple(args), dict(kwargs)), batch_dim=0 if first is None else first, fixed_rows=first is None)


def _dynamic_dims(program: ExportedProgram) -> list[int | None]:
    """For each input, its first dimension whose size is not fixed."""
    names = set(program.graph_signature.user_inputs)
    found = []
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in names:
            shape = getattr(node.meta.get("val"), "shape", ())
            found.append(next((dim for dim, size in enumerate(shape) if isinstance(size, torch.SymInt)), None))
    return found
