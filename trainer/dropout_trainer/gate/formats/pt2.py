"""Decides whether a .pt2 may be given to torch.export.load, which by itself runs code that a hostile file carries.

What torch 2.13 would run, found by reading its loader: pickles (sample inputs, pickled weights, custom objects), compiled
libraries, and Python source in the program's own JSON (see pt2_json.py). So this is an allowlist: the records that
torch.export.save writes for plain dense tensors and nothing else, read through torch's own reader, so that the bytes
which are checked are the bytes which are loaded. Widens the idea of MLflow's check (mlflow.pytorch, PR 25849).
"""

import re
from pathlib import Path
from typing import Any

import torch

from dropout_trainer.gate.formats.pt2_json import check_program, parse
from dropout_trainer.gate.formats.pt2_tensors import check_payloads, check_sample_inputs
from dropout_trainer.gate.formats.zipfacts import REMEDY, record_names
from dropout_trainer.gate.verdict import RefusedError

PROGRAM = "models/model.json"
SAMPLE_INPUTS = "data/sample_inputs/model.pt"
WEIGHTS_CONFIG = "data/weights/model_weights_config.json"
CONSTANTS_CONFIG = "data/constants/model_constants_config.json"
TEXTS = ("archive_format", "archive_version", "byteorder", ".data/version", ".data/serialization_id")
TENSOR = re.compile(r"data/(weights/weight|constants/tensor)_\d{1,6}")
COMPILED = re.compile(r"\.(so|o|a|dll|dylib|cubin|ptx|hsaco|spv|cpp|cu|h|py|pyc)$|aotinductor|executorch", re.IGNORECASE)

MAX_JSON_BYTES = 32 << 20
MAX_SAMPLE_BYTES = 256 << 20


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
        folder = config.rsplit("/", 1)[0]
        sizes = {name: int(reader.get_record_size(name)) for name in names if TENSOR.fullmatch(name) and name.startswith(folder)}
        check_payloads(parse(_read(reader, config, MAX_JSON_BYTES), config), config, sizes)
    check_sample_inputs(_read(reader, SAMPLE_INPUTS, MAX_SAMPLE_BYTES), SAMPLE_INPUTS)
    check_program(parse(_read(reader, PROGRAM, MAX_JSON_BYTES), PROGRAM))
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
