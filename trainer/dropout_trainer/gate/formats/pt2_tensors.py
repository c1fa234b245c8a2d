"""The tensors in a .pt2: each lies as raw bytes in a record, and none says that it is more than its record holds.

torch checks a stride against the record, too, but allocates what an empty record's sizes say, and what is copied of a view
that repeats one element has its full size. Example inputs are the one pickle that an exported program has.
"""

import io
import math
import pickletools
import re
from typing import Any

import torch
from torch import Tensor
from torch._export.serde.serialize import _SERIALIZE_TO_TORCH_DTYPE
from torch.utils import _pytree as pytree

from dropout_trainer.gate.formats.zipfacts import REMEDY, check_archive
from dropout_trainer.gate.verdict import RefusedError

MAX_TENSOR_BYTES = 8 << 30
MAX_VIEW_BYTES = 64 << 20
"""Of a tensor that is larger than its record, as one that was expanded."""
MAX_PICKLE_BYTES = 1 << 20
STRIDED = 7
GLOBALS = re.compile(
    r"torch._utils _rebuild_(tensor_v2|tensor_v3|parameter)|torch \w+Storage|torch.storage UntypedStorage|torch.serialization _get_layout"
    r"|torch (Size|device|u?int\d+|bfloat16|float\d+\w*|complex\d+|bool)|collections OrderedDict|__builtin__ (set|complex)")
INDIRECT = re.compile(r"STACK_GLOBAL|INST|OBJ|NEWOBJ\w*|EXT\d|BUILD|PERSID|\w*BUFFER\w*")
PLAIN = "use plain tensors as example inputs"


def check_payloads(table: Any, config: str, records: dict[str, int]) -> None:
    """Raises RefusedError for an entry of the parsed `config` that is pickled or lies about its record; `records`: bytes of each."""
    if not isinstance(table, dict) or set(table) != {"config"} or not isinstance(table["config"], dict):
        raise RefusedError(f"record {config} is not a table of tensors", REMEDY)
    for name, entry in table["config"].items():
        if not isinstance(entry, dict) or not re.fullmatch(r"[\w.]{1,512}", name, re.ASCII):
            raise RefusedError(f"{config}: {name[:80]!r} is not the name of a tensor", REMEDY)
        file = entry.get("path_name")
        if entry.get("use_pickle") is not False or not re.fullmatch(r"(weight|tensor)_\d{1,6}", str(file)):
            raise RefusedError(f"{config}: {name[:80]!r} ({str(file)[:40]}) is pickled, so that loading it may run code",
                               "keep parameters, buffers and constants plain dense CPU tensors")
        size = records.get(f"{config.rsplit('/', 1)[0]}/{file}")
        if size is None:
            raise RefusedError(f"{config}: {name[:80]!r} has no record", REMEDY)
        _check_tensor(name, entry.get("tensor_meta"), size)


def _check_tensor(name: str, meta: Any, size: int) -> None:
    try:
        sizes, strides = ([_natural(item["as_int"]) for item in meta[key]] for key in ("sizes", "strides"))
        offset = _natural(meta["storage_offset"]["as_int"])
        width = torch.empty(0, dtype=_SERIALIZE_TO_TORCH_DTYPE[meta["dtype"]]).element_size()
        device, layout = meta["device"]["type"], meta["layout"]
    except (KeyError, TypeError, ValueError):
        raise RefusedError(f"tensor {name[:80]!r} has no readable sizes", REMEDY) from None
    if device != "cpu" or layout != STRIDED:
        raise RefusedError(f"tensor {name[:80]!r} lies on {str(device)[:20]!r} or is not dense",
                           "export on the CPU: a program's device is fixed")
    whole = width * math.prod(sizes)
    # an empty record makes torch allocate what the metadata says
    last = offset + sum((length - 1) * stride for length, stride in zip(sizes, strides, strict=False))
    beyond = 0 not in sizes and width * (last + 1) > size
    if len(sizes) != len(strides) or size % width or beyond or size > MAX_TENSOR_BYTES or whole > max(size, MAX_VIEW_BYTES):
        raise RefusedError(f"tensor {name[:80]!r} of sizes {sizes[:8]}, strides {strides[:8]} and offset {offset} has {size} bytes", REMEDY)


def _natural(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError
    return value


def check_sample_inputs(content: bytes, title: str) -> None:
    """Raises RefusedError unless `content` is what torch.save writes for plain values and tensors."""
    names = check_archive(io.BytesIO(content), title)
    try:
        reader = torch._C.PyTorchFileReader(io.BytesIO(content))
        if sorted(reader.get_all_records()) != sorted(names) or reader.get_record_size("data.pkl") > MAX_PICKLE_BYTES:
            raise ValueError("it has other records than its directory names, or a pickle too large")
        _check_pickle(reader.get_record("data.pkl"))
        loaded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:
        what = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
        raise RefusedError(f"record {title} may run code ({what})", PLAIN) from None
    if not isinstance(loaded, (tuple, dict)):
        raise RefusedError(f"record {title} does not hold plain example inputs", PLAIN)
    tensors = [leaf for leaf in pytree.tree_leaves(loaded) if isinstance(leaf, Tensor)]
    if any(tensor.numel() * tensor.element_size() > max(len(content), MAX_VIEW_BYTES) for tensor in tensors):
        raise RefusedError(f"record {title} holds a view larger than itself", PLAIN)


def _check_pickle(content: bytes) -> None:
    """torch's own reader calls more than this, and falls back on one that calls anything."""
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name == "GLOBAL" and not GLOBALS.fullmatch(str(argument)):
            raise ValueError(f"it calls {str(argument)[:80]}")
        if INDIRECT.fullmatch(opcode.name):
            raise ValueError(f"it has an opcode {opcode.name}")
