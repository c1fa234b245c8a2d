"""Example inputs, in the forms in which people have them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn
from torch.utils import _pytree as pytree

from dropout_trainer.check.usercode import REFERENCE, border, find, missing, usage
from dropout_trainer.gate.example import SUFFIXES, UNREADABLE, as_tensor, by_name, read_arrays
from dropout_trainer.gate.inputs import Call
from dropout_trainer.gate.local import as_call

HOW = "let the callable return a pair (module, example inputs), or say --example package.module:callable, FILE.npz, .npy or .safetensors"
OWN = ("example_input_array", "dummy_inputs")
"""Where Lightning's and Hugging Face's modules keep theirs."""


def call_of(example: Any) -> Call:
    """A call from a tensor, a tuple of arguments or a mapping of keyword arguments; arrays become tensors."""
    return as_call(pytree.tree_map(as_tensor, dict(example) if isinstance(example, Mapping) else example))


def named(where: str) -> Call:
    """The example at `package.module:name`, which is called when it can be, or in a .npz or .safetensors file."""
    path = Path(where)
    if path.suffix not in SUFFIXES and REFERENCE.fullmatch(where):
        found = find(where)
        with border(f"{where}, called for an example,"):
            return call_of(found() if callable(found) else found)
    if not path.is_file():
        raise missing(f"--example {where}: there is no such file")
    return from_file(path)


def from_file(path: Path) -> Call:
    """Raises StageFailure Usage for a file of another kind, one that cannot be read, or one without arrays."""
    if path.suffix not in SUFFIXES:
        raise usage(f"--example {path}: a .npz, .npy or .safetensors file is read, or package.module:callable")
    try:
        arrays = read_arrays(path)
    except UNREADABLE as error:
        kind = "safetensors" if path.suffix == ".safetensors" else "arrays of numbers"
        raise usage(f"--example {path}: not readable as {kind} ({str(error)[:160]})") from None
    if not arrays:
        raise usage(f"--example {path}: the file holds no arrays")
    try:
        return by_name(arrays)
    except ValueError as error:
        raise usage(f"--example {path}: {error}") from None


def own(module: nn.Module) -> Call | None:
    """The example that the module itself carries."""
    for name in OWN:
        try:
            example = getattr(module, name, None)
        except Exception:  # noqa: S112 - a property that needs what is not there
            continue
        if example is not None and pytree.tree_leaves(example):
            return call_of(example)
    return None
