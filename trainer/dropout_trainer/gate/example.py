"""Example inputs from a file: NumPy's .npz or .npy, or safetensors. None of them can hold code.

Arrays named arr_0, arr_1, … (as numpy.savez names what has no name) or arg_0, … are positional; other names are those of
forward()'s arguments.
"""

import re
from pathlib import Path

import numpy
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from dropout_trainer.gate.inputs import Call
from dropout_trainer.gate.verdict import RefusedError

REMEDY = "write it with numpy.savez(file, array), with names for keyword arguments, or with safetensors.torch.save_file"
NO_EXAMPLE = RefusedError("there is no example input to try the model with", f"give one with --example FILE; {REMEDY}")
POSITIONAL = re.compile(r"ar[rg]_(\d{1,3})")


def read_example(path: Path) -> Call:
    """The call in `path`. Raises RefusedError when it is no such file or holds no array."""
    try:
        named = _named(path)
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        raise RefusedError(f"the example {path.name} cannot be read ({str(error)[:200]})", REMEDY) from None
    if not named:
        raise RefusedError(f"the example {path.name} holds no array", REMEDY)
    positions = {int(match[1]): tensor for name, tensor in named.items() if (match := POSITIONAL.fullmatch(name))}
    keywords = {name: tensor for name, tensor in named.items() if not POSITIONAL.fullmatch(name)}
    return Call(tuple(positions[number] for number in sorted(positions)), keywords)


def _named(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        return dict(load_file(path))
    held = numpy.load(path, allow_pickle=False)
    arrays = {"arr_0": held} if isinstance(held, numpy.ndarray) else dict(held)
    return {name: torch.from_numpy(array) for name, array in arrays.items()}
