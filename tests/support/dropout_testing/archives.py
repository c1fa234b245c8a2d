"""A sound .pt2 taken apart, and put together again with something wrong."""

import io
import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from dropout_api.candidate import PROGRAM as FILE
from dropout_testing import zoo
from dropout_trainer.gate.formats import pt2

Records = dict[str, bytes]
FIRST_WEIGHT = "data/weights/weight_0"


def sound_records(folder: Path) -> Records:
    """Content of each record of a program whose batch is dynamic, by its name without the root folder."""
    path = folder / FILE
    zoo.export(zoo.SOUND["lstm"].build().eval(), torch.randn(4, 5, zoo.FEATURES), path)
    with zipfile.ZipFile(path) as file:
        return {name.split("/", 1)[1]: file.read(name) for name in file.namelist()}


def write(path: Path, records: Records, compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in records.items():
            file.writestr(f"eval/{name}", content)
    return path


def edit_json(records: Records, change: Callable[[Any], None], name: str = pt2.PROGRAM) -> None:
    content = json.loads(records[name])
    change(content)
    records[name] = json.dumps(content).encode()


def edit_tensor(records: Records, **meta: Any) -> None:
    """Says something else of the first weight."""
    edit_json(records, lambda table: next(iter(table["config"].values()))["tensor_meta"].update(meta), pt2.WEIGHTS_CONFIG)


def edit_expressions(records: Records, code: str) -> None:
    def change(program: Any) -> None:
        for meta in program["graph_module"]["graph"]["tensor_values"].values():
            for size in meta["sizes"]:
                if "as_expr" in size:
                    size["as_expr"]["expr_str"] = code

    edit_json(records, change)


def saved(value: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def edit_directory(path: Path, name: str, offset: int, layout: str, value: Any) -> None:
    """Writes `value` into the directory's entry of record `name`, `offset` bytes from its start."""
    content = bytearray(path.read_bytes())
    entry = content.rindex(f"eval/{name}".encode()) - 46
    assert content[entry:entry + 4] == b"PK\x01\x02"
    struct.pack_into(layout, content, entry + offset, value)
    path.write_bytes(content)
