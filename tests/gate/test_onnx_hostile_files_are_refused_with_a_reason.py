"""Nothing in an ONNX file is code, so a hostile one reaches for other files, for memory, or for a second meaning."""

import os
import pickle
import random
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from dropout_testing.onnx_models import BOOL, FLOAT, LOCAL, dropout, function, graph, model, net, node, plain, tensor, value, write
from onnx import AttributeProto, FunctionProto, ModelProto, NodeProto, SparseTensorProto, StringStringEntryProto, TensorProto, helper

from dropout_trainer.gate.formats import onnx_file, onnx_run
from dropout_trainer.gate.verdict import RefusedError

Edit = Callable[[ModelProto], None]
DATA = "weights.bin"


def varint(number: int) -> bytes:
    return bytes([number]) if number < 128 else bytes([number & 127 | 128]) + varint(number >> 7)


def wrapped(content: bytes, *fields: int) -> bytes:
    """`content` as the message in the last of `fields`, inside the one before it, and so on."""
    for number in reversed(fields):
        content = varint(number << 3 | 2) + varint(len(content)) + content
    return content


def weight(made: ModelProto) -> TensorProto:
    return next(item for item in made.graph.initializer if item.name == "weight")


def outside(location: str, **others: str) -> Edit:
    """The weight's data is said to lie in another file."""
    def edit(made: ModelProto) -> None:
        changed = weight(made)
        changed.ClearField("float_data")
        changed.data_location = TensorProto.EXTERNAL
        for key, text in {"location": location, **others}.items():
            changed.external_data.append(StringStringEntryProto(key=key, value=text))
    return edit


def dims(*sizes: int, **others: str) -> Edit:
    def edit(made: ModelProto) -> None:
        if others:
            outside(**others)(made)
        weight(made).dims[:] = sizes
    return edit


def empty(*sizes: int) -> Edit:
    def edit(made: ModelProto) -> None:
        weight(made).ClearField("float_data")
        weight(made).dims[:] = sizes
    return edit


def raw(content: bytes, keep: bool = False) -> Edit:
    def edit(made: ModelProto) -> None:
        if not keep:
            weight(made).ClearField("float_data")
        weight(made).raw_data = content
    return edit


def more(*parts: NodeProto | FunctionProto | TensorProto) -> Edit:
    """Nodes, functions and initialisers besides the model's own."""
    def edit(made: ModelProto) -> None:
        places = {NodeProto: made.graph.node, FunctionProto: made.functions, TensorProto: made.graph.initializer}
        for part in parts:
            places[type(part)].append(part)
    return edit


def all_of(*edits: Edit) -> Edit:
    def edit(made: ModelProto) -> None:
        for one in edits:
            one(made)
    return edit


def sparse(made: ModelProto) -> None:
    made.graph.sparse_initializer.append(SparseTensorProto(
        dims=[1 << 40], values=tensor("s", FLOAT, [1.0], [1]), indices=tensor("i", TensorProto.INT64, [3], [1])))


def sparse_constant(made: ModelProto) -> None:
    made.graph.node.append(node("Constant", outputs="z"))
    made.graph.node[-1].attribute.add(name="sparse_value", type=AttributeProto.SPARSE_TENSOR).sparse_tensor.dims.append(1 << 40)


def two_modes(made: ModelProto) -> None:
    made.graph.node.append(node("Constant", outputs="z", value_int=0))
    made.graph.node[-1].attribute.append(helper.make_attribute("value_int", 1))


def trained(made: ModelProto) -> None:
    made.training_info.add()


def versions(ir: int = 10, opset: int = 20) -> Edit:
    def edit(made: ModelProto) -> None:
        made.ir_version = ir
        made.opset_import[0].version = opset
    return edit


def two_opsets(made: ModelProto) -> None:
    made.opset_import.append(helper.make_opsetid("ai.onnx", 7))


def in_the_domain_of_onnx(made: ModelProto) -> None:
    made.functions.append(function("Mul", node("Add", "a c", "b"), inputs="a c"))
    made.functions[0].domain = ""


def doubling(made: ModelProto) -> None:
    """Each of thirty functions calls the one before it twice."""
    made.functions.append(function("F0", node("Neg", "a", "b")))
    for number in range(1, 24):
        calls = [node(f"F{number - 1}", given, result, domain=LOCAL) for given, result in (("a", "c"), ("c", "b"))]
        made.functions.append(function(f"F{number}", *calls))
    made.graph.node.append(node("F23", "x", "z", domain=LOCAL))


def chain(made: ModelProto) -> None:
    for number in range(3000):
        made.functions.append(function(f"F{number}", node(f"F{number - 1}" if number else "Neg", "a", "b", domain=LOCAL if number else "")))


def mutual(made: ModelProto) -> None:
    more(function("F", node("G", "a", "b", domain=LOCAL)), function("G", node("F", "a", "b", domain=LOCAL)))(made)


def same_bytes_many_times(made: ModelProto) -> None:
    outside(DATA)(made)
    for number in range(100):
        made.graph.initializer.append(weight(made))
        made.graph.initializer[-1].name = f"copy{number}"


def key_twice(made: ModelProto) -> None:
    outside("elsewhere.bin")(made)
    weight(made).external_data.append(StringStringEntryProto(key="location", value=DATA))


EDITS: dict[str, tuple[Edit, str]] = {
    "data up and out": (outside("../../etc/passwd"), "no place inside the model's folder"),
    "data up and in again": (outside("sub/../weights.bin"), "no place inside"),
    "data at an absolute place": (outside("/etc/passwd"), "no place inside"),
    "data on another system's disk": (outside("C:\\secret"), "no place inside"),
    "data at an address in memory": (outside("*/_ORT_MEM_ADDR_/*", offset="140000000"), "no place inside"),
    "data nowhere": (outside(""), "no place inside"),
    "data behind a link": (outside("link.bin"), "a link or no plain file"),
    "data behind a folder's link": (outside("linked/weights.bin"), "a link or no plain file"),
    "data in a pipe": (outside("pipe"), "a link or no plain file"),
    "data in a folder": (outside("sub"), "a link or no plain file"),
    "data that is missing": (outside("missing.bin"), "which is not there"),
    "data that is too short": (outside("short.bin"), "ends at byte 32 of short.bin, which has 31"),
    "data beyond the end": (outside(DATA, offset="1"), "ends at byte 33 of weights.bin, which has 32"),
    "data before the start": (outside(DATA, offset="-1"), "'-1' for an offset or a length"),
    "data of more than its length": (outside(DATA, length="16"), "takes 32 bytes and says 16"),
    "data of less than its length": (outside(DATA, length="64"), "takes 32 bytes and says 64"),
    "data of a huge size outside": (dims(1 << 20, location=DATA), "ends at byte 4194304 of weights.bin, which has 32"),
    "data in two places": (key_twice, "in two ways"),
    "data packed for a runtime": (outside(DATA, prepacked_0="k|0|32"), "in an unknown one"),
    "data in the file and outside": (all_of(outside(DATA), raw(b"1234", keep=True)), "in two ways"),
    "one region a hundred times": (same_bytes_many_times, "share their bytes"),
    "a tensor of 3 GiB without data": (empty(3 << 28), "takes 3221225472 bytes and has 0"),
    "a tensor of 2^80 values": (empty(1 << 40, 1 << 40), "more than 8589934592 bytes"),
    "a tensor of negative size": (empty(-1), r"has the dimensions \[-1\]"),
    "a tensor of two negative sizes": (empty(-2, -4), r"has the dimensions \[-2, -4\]"),
    "a tensor with too little data": (raw(b"\0" * 31), "takes 32 bytes and has 31"),
    "a tensor with too much data": (raw(b"\0" * 33), "takes 32 bytes and has 33"),
    "a tensor with too few values": (dims(9), "takes 9 values and has 8"),
    "a tensor with data twice": (raw(b"\0" * 32, keep=True), "in two ways"),
    "a tensor of texts": (more(tensor("t", TensorProto.STRING, [b"a"], [1])), "holds texts"),
    "a tensor of an unknown type": (more(TensorProto(name="t", data_type=99, dims=[1], raw_data=b"0")), "values of type 99"),
    "a tensor in a node's attribute": (
        more(node("Constant", outputs="z", value=TensorProto(data_type=FLOAT, dims=[1 << 29]))), "takes 2147483648 bytes and has 0"),
    "a sparse initialiser": (sparse, "sparse initialisers"),
    "a sparse constant": (sparse_constant, "a sparse tensor"),
    "an initialiser twice": (more(tensor("weight", FLOAT, [1.0], [1])), "initialiser 'weight' is there twice"),
    "an input twice": (lambda made: made.graph.input.append(value("x", BOOL)), "input 'x' is there twice"),
    "an attribute twice": (two_modes, "attribute 'value_int' is there twice"),
    "a function twice": (more(*[function("F", node(op, "a", "b")) for op in ("Neg", "Abs")]), "function 'local.F.' is there twice"),
    "two opsets of one domain": (two_opsets, "opset of domain '' is there twice"),
    "a function in place of an op": (in_the_domain_of_onnx, "'Mul' has the domain of ONNX's own ops"),
    "a function that calls itself": (more(function("F", node("F", "a", "b", domain=LOCAL))), "'local.F' calls itself"),
    "functions that call each other": (mutual, "calls itself"),
    "functions that double": (doubling, "nodes, its functions' at each call"),
    "three thousand functions in a row": (chain, "by more than 24 others in a row"),
    "an op of a runtime": (more(node("BiasDropout", "x", "z", domain="com.microsoft")), "no op BiasDropout of domain 'com.microsoft'"),
    "an op of a library": (more(node("Run", "x", "z", domain="my.ops", name="evil")), "no op Run of domain 'my.ops' .node 'evil'"),
    "an op of torch": (more(node("ATen", "x", "z", domain="org.pytorch.aten")), "no op ATen"),
    "an op of training": (more(node("Adam", "x", "z", domain="ai.onnx.preview.training")), "no op Adam"),
    "a function that is not there": (more(node("Gone", "x", "z", domain=LOCAL)), "no op Gone of domain 'local'"),
    "an op that ONNX has not": (more(node("Evil", "x", "z")), "finds the model invalid"),
    "a value made twice": (more(node("Neg", "x", "y")), "finds the model invalid"),
    "a value from nowhere": (more(node("Neg", "nowhere", "z")), "finds the model invalid"),
    "training_info": (trained, "carries training_info"),
    "a future IR version": (versions(ir=99), "IR version 99"),
    "no IR version": (versions(ir=0), "IR version 0"),
    "a future opset": (versions(opset=99), "opset 99 of ai.onnx"),
    "a negative opset": (versions(opset=-1), "opset -1"),
    "no nodes": (lambda made: made.graph.ClearField("node"), "no graph with a node"),
}

NESTED = wrapped(b"", 7, 1, *[5, 6, 1] * 200)
CONTENTS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "no graph with a node"),
    "a pickle": (pickle.dumps({"a": print}), "no ONNX model|cut off"),
    "a zip archive": (b"PK\x03\x04" + bytes(60), "no ONNX model"),
    "a text": (b"<html>404</html>", "no ONNX model"),
    "nested two hundred deep": (NESTED, "nested more than 40 deep"),
    "a field of the future": (plain().SerializeToString() + wrapped(b"x", 99), "ModelProto has no field 99"),
    "a kind of the past": (b"\x0b", "ModelProto has no field 1|kind 3"),
    "an endless number": (b"\x08" + b"\xff" * 20, "more than 64 bits"),
    "a name that is no text": (plain().SerializeToString() + wrapped(b"\xff\xfe", 2), "not in UTF-8"),
}


LITTLE_MEMORY = """
import resource, sys
from pathlib import Path
from dropout_trainer.gate.formats import onnx_file
from dropout_trainer.gate.verdict import RefusedError
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (256 << 20), used + (256 << 20)))
for path in sys.argv[1:]:
    try:
        onnx_file.load(Path(path))
    except RefusedError as refused:
        print(refused.evidence)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model's folder, with a weight's data beside it and traps of each kind."""
    made = tmp_path / "model"
    (made / "sub").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    for place in (made, tmp_path / "elsewhere"):
        (place / DATA).write_bytes(np.ones(8, np.float32).tobytes())
    (made / "short.bin").write_bytes(bytes(31))
    (made / "link.bin").symlink_to(tmp_path / "elsewhere" / DATA)
    (made / "linked").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(made / "pipe")
    return made


@pytest.mark.parametrize("name", EDITS)
def test_for(name: str, folder: Path) -> None:
    edit, words = EDITS[name]
    made = plain()
    edit(made)
    path = write(folder / "model.onnx", made)
    before = sorted(folder.parent.rglob("*"))

    with pytest.raises(RefusedError, match=words) as refused:
        onnx_file.load(path)

    assert refused.value.remedy
    assert sorted(folder.parent.rglob("*")) == before


@pytest.mark.parametrize("name", CONTENTS)
def test_for_a_file_that_is(name: str, tmp_path: Path) -> None:
    content, words = CONTENTS[name]

    with pytest.raises(RefusedError, match=words):
        onnx_file.load(write(tmp_path / "model.onnx", content))


def test_for_a_model_cut_off_at_any_byte(tmp_path: Path) -> None:
    made = plain()
    del made.opset_import[1:]  # a model without its last import is whole
    content = made.SerializeToString()

    for length in range(len(content)):
        with pytest.raises(RefusedError):
            onnx_file.load(write(tmp_path / "model.onnx", content[:length]))


def test_for_random_bytes(tmp_path: Path) -> None:
    for seed in range(100):
        with pytest.raises(RefusedError):
            onnx_file.load(write(tmp_path / "model.onnx", random.Random(seed).randbytes(1 + seed * 7)))


def test_and_one_changed_byte_is_refused_or_harmless(tmp_path: Path) -> None:
    content = net(dropout("off")).SerializeToString()
    numbers = random.Random(0)

    for _ in range(400):
        changed = bytearray(content)
        changed[numbers.randrange(len(content))] = numbers.randrange(256)
        path = write(tmp_path / "model.onnx", bytes(changed))
        try:
            onnx_file.load(path)
            onnx_run.Session(path)
        except RefusedError:
            continue


@pytest.mark.parametrize("kind", ["folder", "missing", "pipe"])
def test_for_what_is_no_file(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    if kind == "folder":
        path.mkdir()
    if kind == "pipe":
        os.mkfifo(path)

    with pytest.raises(RefusedError, match="is no file"):
        onnx_file.load(path)


def test_for_a_file_larger_than_protobuf_allows(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    with path.open("wb") as file:
        file.truncate(2 << 30)

    with pytest.raises(RefusedError, match="2147483648 bytes"):
        onnx_file.load(path)


def test_in_little_memory(folder: Path) -> None:
    names = ["a tensor of 3 GiB without data", "a tensor of 2^80 values", "data of a huge size outside", "a sparse initialiser",
             "one region a hundred times", "functions that double", "a tensor in a node's attribute"]
    bombs = [plain() for _ in names]
    for name, made in zip(names, bombs, strict=True):
        EDITS[name][0](made)
    contents = [wrapped(wrapped(b"", 1) * 2_000_001, 7), wrapped(b"\1" * (65 << 20), 7, 5, 7)]
    paths = [write(folder / f"{number}.onnx", content) for number, content in enumerate((*bombs, *contents))]

    done = subprocess.run([sys.executable, "-c", LITTLE_MEMORY, *paths], capture_output=True, text=True, timeout=200,
                          env={"PYTHONPATH": ":".join(sys.path)})

    told = done.stdout.splitlines()
    assert len(told) == len(paths), done.stderr
    assert [told[-2], told[-1]] == ["the file has more than 2000000 nodes, names and other parts",
                                    "the file has more than 67108864 bytes of packed integers"]


def test_while_data_beside_the_model_is_read(folder: Path) -> None:
    for location in (DATA, "sub/weights.bin"):
        (folder / location).write_bytes(np.full(8, 3, np.float32).tobytes())
        made = plain()
        outside(location, offset="0", length="32")(made)

        loaded = onnx_file.load(write(folder / "model.onnx", made))

        assert loaded.data == (folder / location,)


def test_and_a_zip_of_a_model_is_no_model(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.onnx", "w") as archive:
        archive.writestr("model.onnx", plain().SerializeToString())

    with pytest.raises(RefusedError):
        onnx_file.load(tmp_path / "model.onnx")


def test_while_the_model_unchanged_is_loaded(folder: Path) -> None:
    loaded = onnx_file.load(write(folder / "model.onnx", plain()))

    assert loaded.data == ()
    assert loaded.model.graph.node[0].name == "scale"


def test_and_so_is_one_with_a_shallow_branch_and_a_function(folder: Path) -> None:
    body = graph([node("F", "x", domain=LOCAL)], [value("x")])

    assert onnx_file.load(write(folder / "model.onnx", model(body, functions=[function("F", node("Neg", "a", "b"))])))
