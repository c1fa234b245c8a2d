"""Arrays of a NumPy .npz file."""

import io
import zipfile
import zlib
from typing import Any

import numpy as np

from dropout_api.builtins.data import NpzArguments
from dropout_trainer.data import Data, Split, scaling_of
from dropout_trainer.readers.arrays import SCALED_DIMENSIONS, as_inputs, as_targets
from dropout_trainer.readers.failures import invalid, listed, misspelt
from dropout_trainer.readers.labels import number_labels
from dropout_trainer.readers.splitting import TRAIN, shares, split_rows, take
from dropout_trainer.readers.uri import read_bytes

UNREADABLE = (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error)


def npz(arguments: NpzArguments, seed: int) -> Data:
    """Inputs as `as_inputs` has them, targets as `as_targets`. Raises StageFailure for pickles, arrays that are not there or do not fit."""
    arrays = _Arrays(arguments.uri)
    inputs = as_inputs(arrays.get("inputs", arguments.inputs), "inputs", arguments.inputs)
    targets, names = as_targets(arrays.get("targets", arguments.targets), "targets", arguments.targets)
    segments = None
    if arguments.segment:
        segments = number_labels([str(value) for value in _one_each(arrays.get("segment", arguments.segment), len(inputs))])
    if len(inputs) != len(targets):
        raise invalid("targets", f"'{arguments.targets}' has {len(targets)} rows, but '{arguments.inputs}' has {len(inputs)}")
    whole = Split(inputs, targets, segments.numbers if segments else None)
    parts = split_rows(targets, names if names and arguments.stratify else None, shares(arguments), seed)
    scaled = inputs.is_floating_point() and inputs.dim() in SCALED_DIMENSIONS
    train, val, test = take(whole, parts)
    return Data(
        train, val, test, class_names=names, segment_names=segments.names if segments else (),
        scaling=scaling_of(inputs[parts[TRAIN]]) if scaled else None,
    )


class _Arrays:
    def __init__(self, uri: str) -> None:
        self.uri = uri
        try:
            held = np.load(io.BytesIO(read_bytes(uri)), allow_pickle=False)
        except UNREADABLE as error:
            raise self._broken(error) from None
        if not isinstance(held, np.lib.npyio.NpzFile):
            raise invalid("uri", f"{uri} is a single array (.npy); write it with numpy.savez(file, inputs=…, targets=…)")
        self.held = held

    def get(self, field: str, name: str) -> np.ndarray[Any, np.dtype[Any]]:
        if name not in self.held.files:
            raise misspelt(field, f"there is no array '{name}' in {self.uri}; its arrays are {listed(self.held.files)}")
        try:
            array: np.ndarray[Any, np.dtype[Any]] = self.held[name]
        except UNREADABLE as error:
            raise self._broken(error, name) from None
        return array

    def _broken(self, error: BaseException, name: str = "") -> Exception:
        if "pickle" in str(error):
            what = f"array '{name}' of {self.uri} holds" if name else f"{self.uri} holds"
            return invalid("uri", f"{what} Python objects, which could run code; save arrays of numbers or of strings alone")
        text = next(iter(str(error).splitlines()), "")[:300]
        return invalid("uri", f"{self.uri} cannot be read as .npz: {type(error).__name__}: {text}")


def _one_each(array: np.ndarray[Any, np.dtype[Any]], rows: int) -> list[Any]:
    if array.shape != (rows,):
        raise invalid("segment", f"must be [{rows}], one for each row, not {list(array.shape)}")
    return list(array.tolist())

