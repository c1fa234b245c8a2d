"""Example inputs from a file: NumPy's .npz or .npy, or safetensors. None of them can hold code.

Arrays named arr_0, arr_1, … (as numpy.savez names what has no name) or arg_0, … are positional; other names are those of
forward()'s arguments.
"""

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from dropout_trainer.gate.inputs import Call
from dropout_trainer.gate.verdict import RefusedError

REMEDY = "write it with numpy.savez(file, array), with names for keyword arguments, or with safetensors.torch.save_file"
NO_EXAMPLE = RefusedError("there is no example input to try the model with", f"give one with --example FILE; {REMEDY}")
SUFFIXES = (".npz", ".npy", ".safetensors")
UNREADABLE = (OSError, ValueError, TypeError, zipfile.BadZipFile, SafetensorError)
"""What reading a file that is none of these, or is broken, raises."""
POSITIONAL = re.compile(r"ar[rg]_(\d{1,3})")


def read_example(path: Path) -> Call:
    """The call in `path`. Raises RefusedError when it is no such file or holds no array."""
    try:
        named = read_arrays(path)
    except UNREADABLE as error:
        raise RefusedError(f"the example {path.name} cannot be read ({str(error)[:200]})", REMEDY) from None
    if not named:
        raise RefusedError(f"the example {path.name} holds no array", REMEDY)
    try:
        return by_name(named)
    except ValueError as error:
        raise RefusedError(f"the example {path.name}: {error}", REMEDY) from None


def read_arrays(path: Path) -> dict[str, Tensor]:
    """Every array of the file by its name. Raises one of UNREADABLE."""
    if path.suffix == ".safetensors":
        return dict(load_file(path))
    held = numpy.load(path, allow_pickle=False)
    arrays = {"arr_0": held} if isinstance(held, numpy.ndarray) else dict(held)
    return {name: as_tensor(array) for name, array in arrays.items()}


def by_name(named: Mapping[str, Tensor]) -> Call:
    """Raises ValueError when a positional argument is left out."""
    positions = {int(match[1]): tensor for name, tensor in named.items() if (match := POSITIONAL.fullmatch(name))}
    if sorted(positions) != list(range(len(positions))):
        raise ValueError("arguments by place must be arr_0, arr_1, … without a gap")
    keywords = {name: tensor for name, tensor in named.items() if not POSITIONAL.fullmatch(name)}
    return Call(tuple(positions[number] for number in sorted(positions)), keywords)


def as_tensor(leaf: Any) -> Any:
    """Arrays as tensors. float64, numpy's default, becomes torch's: models seldom mean it."""
    if not isinstance(leaf, numpy.ndarray):
        return leaf
    tensor = torch.from_numpy(numpy.array(leaf))
    return tensor.to(torch.get_default_dtype()) if tensor.dtype == torch.float64 else tensor
