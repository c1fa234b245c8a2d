"""Tensors of an ONNX model: each is as long as its data, and data outside the file lies beside it.

A loader allocates what the dimensions say and opens what the location says, so both are checked before there is one.
"""

import math
import re
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from onnx import TensorProto

from dropout_trainer.gate.verdict import RefusedError

REMEDY = "export the model again and keep all of its files together"
INSIDE = "keep the weights in the model's own file (external_data=False), or as plain files beside it"
MAX_BYTES = 8 << 30
"""Bytes of all tensors of a model."""
BITS = {
    TensorProto.FLOAT: 32, TensorProto.UINT8: 8, TensorProto.INT8: 8, TensorProto.UINT16: 16, TensorProto.INT16: 16, TensorProto.INT32: 32,
    TensorProto.INT64: 64, TensorProto.BOOL: 8, TensorProto.FLOAT16: 16, TensorProto.DOUBLE: 64, TensorProto.UINT32: 32,
    TensorProto.UINT64: 64, TensorProto.COMPLEX64: 64, TensorProto.COMPLEX128: 128, TensorProto.BFLOAT16: 16, TensorProto.FLOAT8E4M3FN: 8,
    TensorProto.FLOAT8E4M3FNUZ: 8, TensorProto.FLOAT8E5M2: 8, TensorProto.FLOAT8E5M2FNUZ: 8, TensorProto.UINT4: 4, TensorProto.INT4: 4,
}
LISTS = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data", "string_data")
KEYS = frozenset(("location", "offset", "length", "checksum"))
PART = re.compile(r"(?!\.{1,2}$)[^\\/:*?\"<>|\x00-\x1f\x7f]{1,200}")
"""One name in a location. Runtimes give names with stars in them a meaning of their own."""


class Region(NamedTuple):
    """A tensor's bytes in another file."""

    file: Path
    size: int


def check(tensors: Iterable[TensorProto], folder: Path) -> tuple[Path, ...]:
    """The files beside the model that hold data of its tensors, sorted.

    Raises RefusedError, naming the tensor, when one is not what its data is, or lies outside `folder`, the model's own.
    """
    total = 0
    regions: list[Region] = []
    for tensor in tensors:
        size = _size(tensor)
        total += size
        if total > MAX_BYTES:
            raise RefusedError(f"tensor {_name(tensor)} makes it more than {MAX_BYTES} bytes of tensors", "export a smaller model")
        if tensor.data_location == TensorProto.EXTERNAL:
            regions.append(_region(tensor, size, folder))
        else:
            _check_inside(tensor, size)
    files = {region.file: region.file.stat().st_size for region in regions}
    if sum(region.size for region in regions) > sum(files.values()):
        raise RefusedError("several tensors share their bytes in another file, so that loading takes more than the files hold", INSIDE)
    return tuple(sorted(files))


def _size(tensor: TensorProto) -> int:
    """Bytes of the tensor by its dimensions, 4-bit values packed by two."""
    bits = BITS.get(tensor.data_type)
    if bits is None:
        kind = "texts" if tensor.data_type == TensorProto.STRING else f"values of type {tensor.data_type}"
        raise RefusedError(f"tensor {_name(tensor)} holds {kind}; the gate reads plain numbers", "make it a numeric tensor")
    if any(dimension < 0 for dimension in tensor.dims) or len(tensor.dims) > 64:
        raise RefusedError(f"tensor {_name(tensor)} has the dimensions {list(tensor.dims[:8])}", REMEDY)
    size: int = (math.prod(tensor.dims) * bits + 7) // 8
    return size


def _check_inside(tensor: TensorProto, size: int) -> None:
    lists = [len(getattr(tensor, field)) for field in LISTS]
    if tensor.external_data or tensor.HasField("segment") or sum(map(bool, [*lists, tensor.raw_data])) > 1:
        raise RefusedError(f"tensor {_name(tensor)} says in two ways where its data is", REMEDY)
    values = math.prod(tensor.dims)
    if tensor.data_type in (TensorProto.COMPLEX64, TensorProto.COMPLEX128):
        values *= 2
    elif tensor.data_type in (TensorProto.UINT4, TensorProto.INT4):
        values = size
    given, expected, unit = (sum(lists), values, "values") if any(lists) else (len(tensor.raw_data), size, "bytes")
    if given != expected:
        raise RefusedError(f"tensor {_name(tensor)} of dimensions {list(tensor.dims[:8])} takes {expected} {unit} and has {given}", REMEDY)


def _region(tensor: TensorProto, size: int, folder: Path) -> Region:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    inside = any(getattr(tensor, field) for field in (*LISTS, "raw_data"))
    if inside or len(entries) != len(tensor.external_data) or not entries.keys() <= KEYS:
        raise RefusedError(f"tensor {_name(tensor)} says in two ways, or in an unknown one, where its data is", REMEDY)
    file = _beside(folder, entries.get("location", ""), _name(tensor))
    offset, length = (_number(entries.get(key, default), tensor) for key, default in (("offset", "0"), ("length", str(size))))
    if length != size:
        raise RefusedError(f"tensor {_name(tensor)} of dimensions {list(tensor.dims[:8])} takes {size} bytes and says {length}", REMEDY)
    if offset + length > (end := file.stat().st_size):
        raise RefusedError(f"tensor {_name(tensor)} ends at byte {offset + length} of {file.name}, which has {end}", REMEDY)
    return Region(file, size)


def _beside(folder: Path, location: str, name: str) -> Path:
    """The plain file at `location` in `folder`, reached without a link."""
    parts = location.split("/")
    if not all(PART.fullmatch(part) for part in parts):
        raise RefusedError(f"tensor {name} has its data at {location[:120]!r}, which is no place inside the model's folder", INSIDE)
    path = folder
    for place, part in enumerate(parts, 1):
        path = path / part
        try:
            mode = path.lstat().st_mode
        except OSError:
            raise RefusedError(f"tensor {name} has its data in {location[:120]!r}, which is not there", REMEDY) from None
        if not (stat.S_ISREG(mode) if place == len(parts) else stat.S_ISDIR(mode)):
            raise RefusedError(f"tensor {name} has its data in {location[:120]!r}, which is a link or no plain file", INSIDE)
    return path


def _number(text: str, tensor: TensorProto) -> int:
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise RefusedError(f"tensor {_name(tensor)} has {text[:40]!r} for an offset or a length in its file", REMEDY)
    return int(text)


def _name(tensor: TensorProto) -> str:
    return repr(tensor.name[:80]) if tensor.name else "without a name"
