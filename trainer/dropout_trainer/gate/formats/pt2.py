"""Decides whether a .pt2 may be given to torch.export.load, which by itself runs code that a hostile file carries.

What torch 2.13 would run, found by reading its loader: pickles (sample inputs, pickled weights, custom objects), compiled
libraries, and Python source in the program's own JSON (see pt2_json.py). So this is an allowlist: the records that
torch.export.save writes for plain dense tensors and nothing else, read through torch's own reader, so that the bytes
which are checked are the bytes which are loaded. Widens the idea of MLflow's check (mlflow.pytorch, PR 25849).
"""

import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import torch

from dropout_trainer.gate.formats.pt2_json import check_program
from dropout_trainer.gate.formats.zipfacts import REMEDY, record_names
from dropout_trainer.gate.verdict import RefusedError

PROGRAM = "models/model.json"
SAMPLE_INPUTS = "data/sample_inputs/model.pt"
WEIGHTS_CONFIG = "data/weights/model_weights_config.json"
CONSTANTS_CONFIG = "data/constants/model_constants_config.json"
TEXTS = ("archive_format", "archive_version", "byteorder", ".data/version", ".data/serialization_id")
TENSOR = re.compile(r"data/(weights/weight|constants/tensor)_\d{1,6}")
COMPILED = re.compile(r"\.(so|o|a|dll|dylib|cubin|ptx|hsaco|spv|cpp|cu|h|py|pyc)$|aotinductor|executorch", re.IGNORECASE)

MAX_JSON_BYTES = 64 << 20
MAX_SAMPLE_BYTES = 256 << 20
MAX_TENSOR_BYTES = 8 << 30


def validate(path: Path) -> int:
    """Raises RefusedError, naming the record, when loading the .pt2 at `path` could run code or exhaust memory.

    Returns the number of records looked at.
    """
    names = record_names(path)
    for name in names:
        _check_name(name)
    missing = {PROGRAM, SAMPLE_INPUTS, WEIGHTS_CONFIG, CONSTANTS_CONFIG, "archive_format", "archive_version"} - set(names)
    if missing:
        raise RefusedError(f"the archive has no record {min(missing)}", REMEDY)
    reader = _reader(path)
    if sorted(reader.get_all_records()) != sorted(names):
        raise RefusedError("torch reads other records from the archive than its directory names", REMEDY)
    for name in TEXTS:
        if name in names and not re.fullmatch(rb"[A-Za-z0-9._-]{1,64}\n?", _read(reader, name, 128)):
            raise RefusedError(f"record {name} is not a short text", REMEDY)
    for config in (WEIGHTS_CONFIG, CONSTANTS_CONFIG):
        _check_payload_config(reader, config, set(names))
    _check_sample_inputs(_read(reader, SAMPLE_INPUTS, MAX_SAMPLE_BYTES))
    check_program(_json(reader, PROGRAM))
    return len(names)


def _check_name(name: str) -> None:
    if name in (PROGRAM, SAMPLE_INPUTS, WEIGHTS_CONFIG, CONSTANTS_CONFIG, *TEXTS) or TENSOR.fullmatch(name):
        return
    if COMPILED.search(name):
        raise RefusedError(f"record {name[:120]!r} is compiled code", "export the program itself, without AOTInductor or ExecuTorch")
    raise RefusedError(f"record {name[:120]!r} is none that a plain exported program has", "save without extra files and custom objects")


def _reader(path: Path) -> Any:
    try:
        return torch._C.PyTorchFileReader(str(path))
    except RuntimeError as error:
        raise RefusedError(f"torch cannot read the archive ({str(error).splitlines()[0][:200]})", REMEDY) from None


def _read(reader: Any, name: str, limit: int) -> bytes:
    size = int(reader.get_record_size(name))
    if size > limit:
        raise RefusedError(f"record {name} has {size} bytes; {limit} are accepted", "export a smaller program")
    content = reader.get_record(name)
    assert isinstance(content, bytes)
    return content


def _json(reader: Any, name: str) -> Any:
    try:
        return json.loads(_read(reader, name, MAX_JSON_BYTES))
    except (ValueError, RecursionError):
        raise RefusedError(f"record {name} is not JSON", REMEDY) from None


def _check_payload_config(reader: Any, config: str, names: set[str]) -> None:
    """Every tensor lies as raw bytes in a record of its own kind, and none allocates more than the archive holds."""
    table = _json(reader, config)
    if not isinstance(table, dict) or set(table) != {"config"} or not isinstance(table["config"], dict):
        raise RefusedError(f"record {config} is not a table of tensors", REMEDY)
    for name, entry in table["config"].items():
        if not isinstance(entry, dict) or not re.fullmatch(r"[\w.]{1,512}", name, re.ASCII):
            raise RefusedError(f"{config}: {name[:80]!r} is not the name of a tensor", REMEDY)
        record = f"{config.rsplit('/', 1)[0]}/{entry.get('path_name')}"
        if entry.get("use_pickle") is not False or not TENSOR.fullmatch(record):
            raise RefusedError(f"{config}: {name[:80]!r} is pickled, so that loading it may run code",
                          "keep parameters, buffers and constants plain dense CPU tensors")
        if record not in names:
            raise RefusedError(f"{config}: {name[:80]!r} has no record", REMEDY)
        _check_tensor(name, entry.get("tensor_meta"), int(reader.get_record_size(record)))


def _check_tensor(name: str, meta: Any, size: int) -> None:
    # an empty record makes torch allocate what the metadata says, so only an empty tensor may have one
    try:
        sizes = [dimension["as_int"] for dimension in meta["sizes"]]
        device = meta["device"]["type"]
    except (KeyError, TypeError):
        raise RefusedError(f"tensor {name[:80]!r} has no readable sizes", REMEDY) from None
    if device != "cpu":
        raise RefusedError(f"tensor {name[:80]!r} lies on {str(device)[:20]!r}", "export on the CPU: a program's device is fixed")
    if size > MAX_TENSOR_BYTES or (size == 0 and 0 not in sizes):
        raise RefusedError(f"tensor {name[:80]!r} of sizes {sizes[:8]} has {size} bytes", REMEDY)


def _check_sample_inputs(content: bytes) -> None:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as inner:
            stored = all(info.compress_type == zipfile.ZIP_STORED for info in inner.infolist())
        loaded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True) if stored else None
    except Exception as error:
        what = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
        raise RefusedError(f"record {SAMPLE_INPUTS} may run code ({what})", "use plain tensors as example inputs") from None
    if not isinstance(loaded, (tuple, dict)):
        raise RefusedError(f"record {SAMPLE_INPUTS} does not hold plain example inputs", "use plain tensors as example inputs")
