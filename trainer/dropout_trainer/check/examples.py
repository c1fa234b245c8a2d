"""Example inputs, in the forms in which people have them."""

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from torch.utils import _pytree as pytree

from dropout_trainer.check.usercode import REFERENCE, border, find, missing, usage
from dropout_trainer.gate.inputs import Call
from dropout_trainer.gate.local import as_call

PLACE = re.compile(r"ar[rg]_(\d{1,3})")
HOW = "let the callable return a pair (module, example inputs), or say --example package.module:callable, FILE.npz, .npy or .safetensors"
OWN = ("example_input_array", "dummy_inputs")
"""Where Lightning's and Hugging Face's modules keep theirs."""


def call_of(example: Any) -> Call:
    """A call from a tensor, a tuple of arguments or a mapping of keyword arguments; arrays become tensors."""
    return as_call(pytree.tree_map(_tensor, dict(example) if isinstance(example, Mapping) else example))


def named(where: str) -> Call:
    """The example at `package.module:name`, which is called when it can be, or in a .npz or .safetensors file."""
    path = Path(where)
    if path.suffix not in READERS and REFERENCE.fullmatch(where):
        found = find(where)
        with border(f"{where}, called for an example,"):
            return call_of(found() if callable(found) else found)
    if not path.is_file():
        raise missing(f"--example {where}: there is no such file")
    return from_file(path)


def from_file(path: Path) -> Call:
    """Raises StageFailure Usage for a file of another kind, one that cannot be read, or one without arrays."""
    if path.suffix not in READERS:
        raise usage(f"--example {path}: a .npz, .npy or .safetensors file is read, or package.module:callable")
    arrays = READERS[path.suffix](path)
    if not arrays:
        raise usage(f"--example {path}: the file holds no arrays")
    places = {int(match[1]): value for name, value in arrays.items() if (match := PLACE.fullmatch(name))}
    if sorted(places) != list(range(len(places))):
        raise usage(f"--example {path}: arguments by place must be arr_0, arr_1, … without a gap")
    keywords = {name: value for name, value in arrays.items() if not PLACE.fullmatch(name)}
    return Call(args=tuple(places[place] for place in sorted(places)), kwargs=keywords)


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


def _numpy(path: Path) -> dict[str, Any]:
    try:
        held = np.load(path, allow_pickle=False)
        arrays = {"arr_0": held} if isinstance(held, np.ndarray) else dict(held)
        return {name: _tensor(array) for name, array in arrays.items()}
    except (ValueError, OSError, zipfile.BadZipFile, TypeError) as error:
        raise usage(f"--example {path}: not readable as arrays of numbers ({str(error)[:160]})") from None


def _safetensors(path: Path) -> dict[str, Any]:
    try:
        return dict(load_file(path))
    except (SafetensorError, OSError, ValueError) as error:
        raise usage(f"--example {path}: not readable as safetensors ({str(error)[:160]})") from None


def _tensor(leaf: Any) -> Any:
    """Arrays as tensors. float64, numpy's default, becomes torch's: models seldom mean it."""
    if not isinstance(leaf, np.ndarray):
        return leaf
    tensor = torch.from_numpy(np.array(leaf))
    return tensor.to(torch.get_default_dtype()) if tensor.dtype == torch.float64 else tensor


READERS = {".npz": _numpy, ".npy": _numpy, ".safetensors": _safetensors}
