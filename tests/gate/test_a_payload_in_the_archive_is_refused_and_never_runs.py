"""Each planted payload would touch a file; some are loaded without the validation first, to show that they are live."""

import json
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from dropout_testing import archives, zoo
from dropout_testing.archives import FIRST_WEIGHT, Records, edit_expressions, edit_json, saved, write

from dropout_api.candidate import PROGRAM
from dropout_trainer.gate.formats import pt2 as archive
from dropout_trainer.gate.programs import load
from dropout_trainer.gate.verdict import RefusedError

Edit = Callable[[Records, Path], None]


class Touch:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


@pytest.fixture(scope="session")
def records(tmp_path_factory: pytest.TempPathFactory) -> Records:
    return archives.sound_records(tmp_path_factory.mktemp("program"))


def pickled_sample_inputs(records: Records, target: Path) -> None:
    records[archive.SAMPLE_INPUTS] = saved(((Touch(target),), {}))


def pickled_keyword_inputs(records: Records, target: Path) -> None:
    records[archive.SAMPLE_INPUTS] = saved(((torch.zeros(4, 5, zoo.FEATURES),), {"x": [{"y": Touch(target)}]}), pickle_protocol=4)


def greedy_sample_inputs(records: Records, target: Path) -> None:
    class Greedy:
        def __reduce__(self) -> tuple[Any, ...]:
            return (bytearray, (1 << 36,))

    records[archive.SAMPLE_INPUTS] = saved(((Greedy(),), {}))


def pickled_weight(records: Records, target: Path) -> None:
    def change(table: Any) -> None:
        next(iter(table["config"].values()))["use_pickle"] = True

    edit_json(records, change, archive.WEIGHTS_CONFIG)
    records[FIRST_WEIGHT] = saved(Touch(target))


def pickled_constant(records: Records, target: Path) -> None:
    entry = {"path_name": "tensor_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
    edit_json(records, lambda table: table["config"].update(thing=entry), archive.CONSTANTS_CONFIG)
    records["data/constants/tensor_0"] = saved(Touch(target))


def custom_object(records: Records, target: Path) -> None:
    entry = {"path_name": "custom_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
    edit_json(records, lambda table: table["config"].update(thing=entry), archive.CONSTANTS_CONFIG)


def legacy_weights(records: Records, target: Path) -> None:
    records["data/weights/model.pt"] = saved({"x": Touch(target)})


def legacy_constants(records: Records, target: Path) -> None:
    records["data/constants/model.pt"] = saved({"x": Touch(target)})


def second_program(records: Records, target: Path) -> None:
    records["models/other.json"] = records[archive.PROGRAM]
    records["data/sample_inputs/other.pt"] = saved(((Touch(target),), {}))


def weight_elsewhere(records: Records, target: Path) -> None:
    edit_json(records, lambda table: next(iter(table["config"].values())).update(path_name="../../../etc/passwd"), archive.WEIGHTS_CONFIG)


def opaque_constant(records: Records, target: Path) -> None:
    entry = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
    edit_json(records, lambda table: table["config"].update(thing=entry), archive.CONSTANTS_CONFIG)
    records["data/constants/opaque_obj_0"] = pickle.dumps(Touch(target))


def guard(records: Records, target: Path) -> None:
    code = f"__import__('pathlib').Path({str(target)!r}).touch() is None"
    edit_json(records, lambda program: program.update(guards_code=[code]))


def expression(records: Records, target: Path) -> None:
    edit_expressions(records, f"__import__('pathlib').Path({str(target)!r}).touch() or 8")


def hint(records: Records, target: Path) -> None:
    edit_expressions(records, "Symbol('s0', integer=open('x'))")


def attribute_of_symbol(records: Records, target: Path) -> None:
    edit_expressions(records, "s77.__class__.__mro__")


def guard_that_looks_up(records: Records, target: Path) -> None:
    edit_json(records, lambda program: program.update(guards_code=["L['x'].__class__.__base__.__subclasses__()[0]() == 1"]))


def guard_of_two_lines(records: Records, target: Path) -> None:
    edit_json(records, lambda program: program.update(guards_code=["True\nprint(1)"]))


def guard_that_binds(records: Records, target: Path) -> None:
    edit_json(records, lambda program: program.update(guards_code=["(s0 := 1) == 1"]))


def guard_with_lambda(records: Records, target: Path) -> None:
    edit_json(records, lambda program: program.update(guards_code=["(lambda: 1)() == 1"]))


def range_that_is_code(records: Records, target: Path) -> None:
    edit_json(records, lambda program: program.update(range_constraints={"__import__('os')": {"min_val": 0, "max_val": 1}}))


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


def tree_of_a_named_tuple(records: Records, target: Path) -> None:
    tree = json.dumps([1, {"type": "collections.namedtuple", "context": json.dumps({"class_name": "os.system"}), "children_spec": []}])
    edit_json(records, lambda program: program["graph_module"]["module_call_graph"][0]["signature"].update(in_spec=tree))


def node_target(name: str) -> Edit:
    def edit(records: Records, target: Path) -> None:
        edit_json(records, lambda program: program["graph_module"]["graph"]["nodes"][0].update(target=name))

    edit.__name__ = name
    return edit


def node_name(records: Records, target: Path) -> None:
    edit_json(records, lambda program: program["graph_module"]["graph"]["nodes"][0].update(name="x\n    import os"))


def argument_names(records: Records, target: Path) -> None:
    names = {"forward_arg_names": ["x=print(1)"]}
    edit_json(records, lambda program: program["graph_module"]["module_call_graph"][0]["signature"].update(names))


def attribute_name(records: Records, target: Path) -> None:
    def change(program: Any) -> None:
        first = program["graph_module"]["signature"]["input_specs"][0]
        next(iter(first.values()))["parameter_name"] = "x')(print(1)"

    edit_json(records, change)


def module_name(records: Records, target: Path) -> None:
    edit_json(records, lambda program: program["graph_module"]["module_call_graph"][0].update(fqn="x; import os"))


def graph_in_argument(records: Records, target: Path) -> None:
    graph = {"inputs": [], "outputs": [], "tensor_values": {}, "sym_int_values": {}, "sym_bool_values": {},
             "nodes": [{"target": "torch.hub.load", "inputs": [], "outputs": [], "metadata": {}}]}
    argument = {"name": "x", "arg": {"as_graph": {"name": "body", "graph": graph}}, "kind": 1}
    edit_json(records, lambda program: program["graph_module"]["graph"]["nodes"][0]["inputs"].append(argument))


def object_in_argument(records: Records, target: Path) -> None:
    argument = {"name": "x", "arg": {"as_custom_obj": {"name": "x", "class_fqn": "os.system"}}, "kind": 1}
    edit_json(records, lambda program: program["graph_module"]["graph"]["nodes"][0]["inputs"].append(argument))


def library(records: Records, target: Path) -> None:
    records["data/aotinductor/model/model.so"] = b"\x7fELF"


def kernel(records: Records, target: Path) -> None:
    records["data/weights/kernel.cubin"] = b"\x7fELF"


def inductor(records: Records, target: Path) -> None:
    records["data/aotinductor/model/wrapper.json"] = b"{}"


def executorch(records: Records, target: Path) -> None:
    records["data/executorch/model.pte"] = b"ET12"


def script(records: Records, target: Path) -> None:
    records["code/__torch__.py"] = b"import os"


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


STRANGERS = (
    "torch.ops.load_library", "torch.ops.aten.save.default", "torch.ops.mine.evil.default", "torch.utils.cpp_extension.load_inline",
    "torch.ops.higher_order.triton_kernel_wrapper_functional", "_operator.attrgetter", "_operator.methodcaller",
    "math.__loader__.load_module", "#mine.evil",
)
EDITS: list[tuple[Edit, str]] = [
    (pickled_sample_inputs, "data/sample_inputs/model.pt"), (pickled_keyword_inputs, "data/sample_inputs/model.pt"),
    (greedy_sample_inputs, "bytearray"), (pickled_weight, "is pickled"), (pickled_constant, "is pickled"), (custom_object, "custom_obj_0"),
    (opaque_constant, "opaque_obj_0"), (legacy_weights, "data/weights/model.pt"), (legacy_constants, "data/constants/model.pt"),
    (second_program, "models/other.json"), (weight_elsewhere, "etc/passwd"),
    (guard, "guards_code"), (guard_that_looks_up, "guards_code"), (guard_of_two_lines, "guards_code"), (guard_that_binds, "guards_code"),
    (guard_with_lambda, "guards_code"), (expression, "expr_str"), (hint, "expr_str"), (attribute_of_symbol, "expr_str"),
    (range_that_is_code, "no symbol"), (call_target, "torch.hub.load"), (file_operator, "from_file"),
    *((node_target(name), "no operator of torch") for name in STRANGERS),
    (node_name, "name holds"), (placeholder_name, "name holds"), (argument_names, "forward_arg_names"), (attribute_name, "parameter_name"),
    (module_name, "fqn"), (graph_in_argument, "torch.hub.load"), (object_in_argument, "as_custom_obj"), (nested_in_metadata, "as_operator"),
    (tree_that_imports, "out_spec"), (tree_of_a_named_tuple, "in_spec"), (library, "compiled code"), (kernel, "compiled code"),
    (inductor, "compiled code"), (executorch, "compiled code"), (script, "compiled code"),
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
