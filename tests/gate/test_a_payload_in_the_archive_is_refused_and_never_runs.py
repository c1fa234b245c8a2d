"""Each planted payload would touch a file; some are loaded without the validation first, to show that they are live."""

import io
import json
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from dropout_testing import zoo

from dropout_api.candidate import PROGRAM
from dropout_trainer.gate.formats import pt2 as archive
from dropout_trainer.gate.programs import load
from dropout_trainer.gate.verdict import RefusedError

Records = dict[str, bytes]
Edit = Callable[[Records, Path], None]


class Touch:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


@pytest.fixture(scope="session")
def records(tmp_path_factory: pytest.TempPathFactory) -> Records:
    path = tmp_path_factory.mktemp("program") / PROGRAM
    zoo.export(zoo.SOUND["lstm"].build().eval(), torch.randn(4, 5, zoo.FEATURES), path)
    with zipfile.ZipFile(path) as file:
        return {name.split("/", 1)[1]: file.read(name) for name in file.namelist()}


def write(path: Path, records: Records, compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in records.items():
            file.writestr(f"eval/{name}", content)
    return path


def edit_json(records: Records, change: Callable[[Any], None], name: str = archive.PROGRAM) -> None:
    content = json.loads(records[name])
    change(content)
    records[name] = json.dumps(content).encode()


def pickled_sample_inputs(records: Records, target: Path) -> None:
    buffer = io.BytesIO()
    torch.save(((Touch(target),), {}), buffer)
    records[archive.SAMPLE_INPUTS] = buffer.getvalue()


def pickled_weight(records: Records, target: Path) -> None:
    def change(table: Any) -> None:
        next(iter(table["config"].values()))["use_pickle"] = True

    edit_json(records, change, archive.WEIGHTS_CONFIG)
    buffer = io.BytesIO()
    torch.save(Touch(target), buffer)
    records["data/weights/weight_0"] = buffer.getvalue()


def opaque_constant(records: Records, target: Path) -> None:
    entry = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
    edit_json(records, lambda table: table["config"].update(thing=entry), archive.CONSTANTS_CONFIG)
    records["data/constants/opaque_obj_0"] = pickle.dumps(Touch(target))


def guard(records: Records, target: Path) -> None:
    code = f"__import__('pathlib').Path({str(target)!r}).touch() is None"
    edit_json(records, lambda program: program.update(guards_code=[code]))


def expression(records: Records, target: Path) -> None:
    code = f"__import__('pathlib').Path({str(target)!r}).touch() or 8"

    def change(program: Any) -> None:
        for meta in program["graph_module"]["graph"]["tensor_values"].values():
            for size in meta["sizes"]:
                if "as_expr" in size:
                    size["as_expr"]["expr_str"] = code

    edit_json(records, change)


def call_target(records: Records, target: Path) -> None:
    edit_json(records, lambda program: program["graph_module"]["graph"]["nodes"][0].update(target="torch.hub.load"))


def placeholder_name(records: Records, target: Path) -> None:
    def change(program: Any) -> None:
        program["graph_module"]["graph"]["inputs"][0]["as_tensor"]["name"] = "x=print(1)"

    edit_json(records, change)


def nested_in_metadata(records: Records, target: Path) -> None:
    edit_json(records, lambda program: program["graph_module"].update(metadata={"as_operator": "torch.hub.load"}))


def file_operator(records: Records, target: Path) -> None:
    edit_json(records, lambda program: program["graph_module"]["graph"]["nodes"][0].update(target="torch.ops.aten.from_file.default"))


def tree_that_imports(records: Records, target: Path) -> None:
    context = json.dumps([{"__enum__": True, "fqn": "antigravity:x", "name": "y"}])
    tree = json.dumps([1, {"type": "builtins.dict", "context": context, "children_spec": []}])
    edit_json(records, lambda program: program["graph_module"]["module_call_graph"][0]["signature"].update(out_spec=tree))


def library(records: Records, target: Path) -> None:
    records["data/aotinductor/model/model.so"] = b"\x7fELF"


def extra_record(records: Records, target: Path) -> None:
    records["extra/notes.txt"] = b"hello"


def huge_empty_tensor(records: Records, target: Path) -> None:
    def change(table: Any) -> None:
        next(iter(table["config"].values()))["tensor_meta"]["sizes"] = [{"as_int": 1 << 40}]

    edit_json(records, change, archive.WEIGHTS_CONFIG)
    records["data/weights/weight_0"] = b""


def outside(records: Records, target: Path) -> None:
    records["../../weight_0"] = b""


def other_case(records: Records, target: Path) -> None:
    records["models/MODEL.json"] = b"{}"


EDITS: list[tuple[Edit, str]] = [
    (pickled_sample_inputs, "data/sample_inputs/model.pt"), (pickled_weight, "is pickled"), (opaque_constant, "opaque_obj_0"),
    (guard, "guards_code"), (expression, "expr_str"), (call_target, "torch.hub.load"), (placeholder_name, "name holds"),
    (nested_in_metadata, "as_operator"), (file_operator, "from_file"), (tree_that_imports, "out_spec"), (library, "compiled code"),
    (extra_record, "extra/notes.txt"), (huge_empty_tensor, "has 0 bytes"), (outside, "outside the archive"), (other_case, "there twice"),
]


@pytest.mark.parametrize(("edit", "words"), EDITS, ids=[edit.__name__ for edit, _ in EDITS])
def test_as(edit: Edit, words: str, records: Records, tmp_path: Path) -> None:
    changed = dict(records)
    edit(changed, tmp_path / "touched")

    with pytest.raises(RefusedError, match=words):
        load(write(tmp_path / PROGRAM, changed))

    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("edit", [pickled_sample_inputs, pickled_weight, opaque_constant, guard, expression])
def test_which_torch_alone_would_have_run_as(edit: Edit, records: Records, tmp_path: Path) -> None:
    changed = dict(records)
    edit(changed, tmp_path / "touched")
    path = write(tmp_path / PROGRAM, changed)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            torch.export.load(path).module()(torch.zeros(4, 5, zoo.FEATURES))
        except Exception as error:
            print(error)

    assert (tmp_path / "touched").exists()


def test_nor_is_a_compressed_archive_accepted(records: Records, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="compressed"):
        load(write(tmp_path / PROGRAM, records, zipfile.ZIP_DEFLATED))


def test_nor_one_with_bytes_around_it(records: Records, tmp_path: Path) -> None:
    path = write(tmp_path / PROGRAM, records)
    for content in (b"#!/bin/sh\n" + path.read_bytes(), path.read_bytes() + b"PK"):
        (tmp_path / "other.pt2").write_bytes(content)
        with pytest.raises(RefusedError):
            load(tmp_path / "other.pt2")


def test_while_the_same_archive_unchanged_is_loaded(records: Records, tmp_path: Path) -> None:
    assert load(write(tmp_path / PROGRAM, records))
