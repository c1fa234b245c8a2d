"""Containers, tensors and texts that are not what torch.export.save writes. Those that carry code are in the file beside this one."""

import io
import os
import resource
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from dropout_testing import archives
from dropout_testing.archives import FILE, FIRST_WEIGHT, Records, edit_directory, edit_expressions, edit_json, edit_tensor, saved, write

from dropout_trainer.gate.formats import pt2
from dropout_trainer.gate.formats.zipfacts import END, END_64, LOCATOR
from dropout_trainer.gate.programs import load
from dropout_trainer.gate.verdict import RefusedError

MEMORY = 768 << 20
"""Bytes by which a refusal may raise the most that the process ever held; what the cases lie about is far beyond it."""
Make = Callable[[Path, Records], object]


@pytest.fixture(scope="session")
def records(tmp_path_factory: pytest.TempPathFactory) -> Records:
    return archives.sound_records(tmp_path_factory.mktemp("program"))


def refusal(make: Make, records: Records, folder: Path) -> str:
    path = folder / FILE
    make(path, dict(records))
    files, before = set(folder.iterdir()), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(RefusedError) as caught:
        load(path)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10 < MEMORY
    assert set(folder.iterdir()) == files
    return caught.value.evidence


def truncated(part: float) -> Make:
    def make(path: Path, records: Records) -> None:
        content = write(path, records).read_bytes()
        path.write_bytes(content[: int(len(content) * part)])

    return make


def directory_says(name: str, offset: int, layout: str, value: Any) -> Make:
    return lambda path, records: edit_directory(write(path, records), name, offset, layout, value)


def named(*names: str, mode: int = 0o644) -> Make:
    """With more records of these names, written as they are."""
    def make(path: Path, records: Records) -> None:
        write(path, records)
        with zipfile.ZipFile(path, "a") as file:
            for number, name in enumerate(names):
                info = zipfile.ZipInfo("x" * len(name))
                info.filename, info.external_attr = name, mode << 16
                file.writestr(info, b"%d" % number)

    return make


def bomb(path: Path, records: Records) -> None:
    records["data/weights/weight_99"] = bytes(256 << 20)
    write(path, records, zipfile.ZIP_DEFLATED)


def bomb_within(path: Path, records: Records) -> None:
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", bytes(256 << 20))
    write(path, {**records, pt2.SAMPLE_INPUTS: inner.getvalue()})


def overlap(path: Path, records: Records) -> None:
    """Two entries of the directory share one record's bytes, as in a bomb that needs no nesting."""
    write(path, {**records, "data/weights/weight_98": b"", "data/weights/weight_99": bytes(64)})
    with zipfile.ZipFile(path) as file:
        place = file.getinfo("eval/data/weights/weight_99").header_offset
    edit_directory(path, "data/weights/weight_98", 42, "<I", place)


def many(path: Path, records: Records) -> None:
    with zipfile.ZipFile(path, "w") as file:
        for number in range(60_000):
            file.writestr(f"eval/data/weights/weight_{number}", b"")


def other_local_name(path: Path, records: Records) -> None:
    content = write(path, records).read_bytes()
    path.write_bytes(content.replace(b"eval/models/model.json", b"eval/models/other.json", 1))


def hidden_between(path: Path, records: Records) -> None:
    """A record that the directory does not name."""
    content = write(path, {**records, "data/weights/weight_99": bytes(64)}).read_bytes()
    start, end = content.rindex(b"PK\x01\x02"), len(content) - END.size
    _, _, _, _, count, size, offset, _ = END.unpack(content[end:])
    path.write_bytes(content[:start] + END.pack(b"PK\x05\x06", 0, 0, count - 1, count - 1, size - (end - start), offset, 0))


def two_ends(path: Path, records: Records) -> None:
    content = write(path, records).read_bytes()
    path.write_bytes(content + content[-22:])


def with_comment(path: Path, records: Records) -> None:
    write(path, records)
    with zipfile.ZipFile(path, "a") as file:
        file.comment = b"PK\x05\x06" + bytes(18)


def end_that_lies(path: Path, records: Records) -> None:
    """A 64-bit end that counts another directory than the short one."""
    content = write(path, records).read_bytes()
    end = len(content) - END.size
    _, _, _, here, count, size, offset, _ = END.unpack(content[end:])
    large = END_64.pack(b"PK\x06\x06", 44, 45, 45, 0, 0, here + 1, count + 1, size, offset)
    path.write_bytes(content[:end] + large + LOCATOR.pack(b"PK\x06\x07", 0, end, 1) + content[end:])


def two_roots(path: Path, records: Records) -> None:
    write(path, records)
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("other/models/model.json", b"{}")


CONTAINERS: dict[str, tuple[Make, str]] = {
    "an empty file": (lambda path, _: path.touch(), "too short"),
    "random bytes": (lambda path, _: path.write_bytes(b"\x00\xff" * 999), "does not end"),
    "no file at all": (lambda path, _: None, "no plain file"),
    "a folder": (lambda path, _: path.mkdir(), "no plain file"),
    "a pipe": (lambda path, _: os.mkfifo(path), "no plain file"),
    "a device": (lambda path, _: path.symlink_to("/dev/zero"), "no plain file"),
    **{f"an archive cut after {part:.2%}": (truncated(part), "zip archive") for part in (0.0001, 0.01, 0.3, 0.6, 0.9, 0.9999)},
    "a record that grows a thousandfold": (bomb, "compressed"),
    "one within the example inputs": (bomb_within, "compressed"),
    "records that overlap": (overlap, "overlaps"),
    "a size that is not there": (directory_says(FIRST_WEIGHT, 24, "<I", 0xFFFF_FFF0), "compressed"),
    "both sizes that are not there": (lambda path, records: (directory_says(FIRST_WEIGHT, 24, "<I", 0xFFFF_FFF0)(path, records),
                                                             edit_directory(path, FIRST_WEIGHT, 20, "<I", 0xFFFF_FFF0)), "disagree"),
    "60 000 records": (many, "60000 records"),
    "a name that climbs": (named("eval/../../../etc/passwd"), "outside"),
    "a name from the root": (named("/etc/passwd"), "outside"),
    "a name with backslashes": (named("eval\\..\\x"), "outside"),
    "a name with a drive": (named("C:/eval/x"), "outside"),
    "a name with a zero byte": (named("eval/x\0.json"), "plain text"),
    "a name that is not ASCII": (named("eval/mödels/model.json"), "plain text"),
    "a name without end": (named("eval/" + "x" * 60_000), "plain text"),
    "a folder's entry": (named("eval/data/"), "is none"),
    "a link": (named("eval/data/weights/weight_99", mode=0o120777), "link"),
    "a device's entry": (named("eval/data/weights/weight_99", mode=0o020666), "link"),
    "a name twice": (named("eval/data/weights/weight_99", "eval/data/weights/weight_99"), "there twice"),
    "a name twice but for its case": (named("eval/data/weights/weight_99", "eval/data/weights/WEIGHT_99"), "there twice"),
    "a record that has another name itself": (other_local_name, "disagree"),
    "a checksum that differs": (directory_says(FIRST_WEIGHT, 16, "<I", 1), "disagree"),
    "a record that the directory does not name": (hidden_between, "between"),
    "two ends": (two_ends, "between|does not end|bytes"),
    "a comment": (with_comment, "does not end|between"),
    "an end that lies": (end_that_lies, "different numbers"),
    "an encrypted record": (directory_says(FIRST_WEIGHT, 8, "<H", 1), "encrypted"),
    "an unknown method": (directory_says(FIRST_WEIGHT, 10, "<H", 99), "compressed"),
    "two root folders": (two_roots, "one root folder"),
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("case", CONTAINERS)
def test_as(case: str, records: Records, tmp_path: Path) -> None:
    make, words = CONTAINERS[case]

    assert any(word in refusal(make, records, tmp_path) for word in words.split("|"))


def ints(*values: int) -> list[dict[str, int]]:
    return [{"as_int": value} for value in values]


TENSORS: dict[str, tuple[dict[str, Any], str]] = {
    "sizes beyond the record": ({"sizes": ints(1 << 20, 8), "strides": ints(8, 1)}, "has"),
    "a size below zero": ({"sizes": ints(-4, 8)}, "readable"),
    "a size that is text": ({"sizes": [{"as_int": "8"}]}, "readable"),
    "a size that is an expression": ({"sizes": [{"as_expr": {"expr_str": "8"}}]}, "readable"),
    "a size of 2 to the 100": ({"sizes": ints(2**100)}, "readable"),
    "sizes whose product overflows": ({"sizes": ints(2**32, 2**32, 2**32), "strides": ints(0, 0, 0)}, "has"),
    "a stride beyond the record": ({"strides": ints(1 << 20, 1)}, "has"),
    "a stride below zero": ({"strides": ints(-1, 1)}, "readable"),
    "a stride too few": ({"strides": ints(1)}, "has"),
    "an offset beyond the record": ({"storage_offset": {"as_int": 1 << 30}}, "has"),
    "an offset below zero": ({"storage_offset": {"as_int": -1}}, "readable"),
    "one element as 2 to the 40": ({"sizes": ints(2**20, 2**20), "strides": ints(0, 0)}, "has"),
    "a wider type than the record": ({"dtype": 8}, "has"),
    "a type that is none": ({"dtype": 999}, "readable"),
    "another device": ({"device": {"type": "cuda", "index": 0}}, "lies on"),
    "a sparse layout": ({"layout": 1}, "not dense"),
    "no sizes": ({"sizes": None}, "readable"),
}


@pytest.mark.parametrize("case", TENSORS)
def test_as_a_tensor_with(case: str, records: Records, tmp_path: Path) -> None:
    meta, words = TENSORS[case]

    def make(path: Path, records: Records) -> None:
        edit_tensor(records, **meta)
        write(path, records)

    assert words in refusal(make, records, tmp_path)


def with_text(change: Callable[[bytes], bytes]) -> Make:
    return lambda path, records: write(path, {**records, pt2.PROGRAM: change(records[pt2.PROGRAM])})


def with_json(**parts: Any) -> Make:
    def make(path: Path, records: Records) -> None:
        edit_json(records, lambda program: program.update(parts))
        write(path, records)

    return make


def with_expression(code: str) -> Make:
    def make(path: Path, records: Records) -> None:
        edit_expressions(records, code)
        write(path, records)

    return make


def begins(more: bytes) -> Make:
    return with_text(lambda text: b"{" + more + b"," + text[1:])


TEXTS: dict[str, tuple[Make, str]] = {
    "no JSON": (with_text(lambda text: text[:-1]), "not JSON"),
    "JSON in 16 bits": (with_text(lambda text: text.decode().encode("utf-16")), "not JSON"),
    "another kind of JSON": (with_text(lambda _: b"[]"), "not an exported program"),
    "an empty program": (with_text(lambda _: b"{}"), "not an exported program"),
    "100 000 lists in each other": (with_text(lambda _: b"[" * 100_000 + b"]" * 100_000), "not JSON"),
    "a million lists beside each other": (begins(b'"x":[' + b"[]," * (3 << 20) + b"[]]"), "objects and lists"),
    "70 MiB": (with_text(lambda text: text + b" " * (70 << 20)), "are accepted"),
    "a key twice": (begins(b'"guards_code":["True"]'), "twice"),
    "a number that is none": (begins(b'"x":NaN'), "NaN"),
    "a number without end": (begins(b'"x":-Infinity'), "Infinity"),
    "a number of 101 bits": (begins(b'"x":%d' % 2**100), "101 bits"),
    "a number of 9000 digits": (begins(b'"x":1' + b"0" * 9000), "not JSON"),
    "a schema of the future": (with_json(schema_version={"major": 99, "minor": 0}), "schema version"),
    "a verifier that is none": (with_json(verifiers=["os.system"]), "cannot load"),
    "a range of a symbol that is code": (with_json(range_constraints={"print(1)": {"min_val": 0, "max_val": None}}), "no symbol"),
    "a symbol's number to count up to": (with_json(range_constraints={"u999999999": {"min_val": 0, "max_val": None}}), "no symbol"),
    "a tower of powers": (with_expression("Pow(Integer(9), Pow(Integer(9), Pow(Integer(9), Integer(9))))"), "expr_str"),
    "a great power": (with_expression("Pow(Integer(2), Integer(99999999999))"), "expr_str"),
    "a power of a power of a power": (with_expression("Pow(" * 40 + "Integer(3)" + ", Integer(8))" * 40), "expr_str"),
    "a great shift": (with_expression("LShift(Integer(1), Integer(99999999999))"), "expr_str"),
    "a billion digits": (with_expression("Float('0.1', precision=3000000000)"), "expr_str"),
    "a billion digits, not named": (with_expression("Float('0.1', 99999999)"), "expr_str"),
    "a text repeated": (with_json(guards_code=["'x' * 99999999999 == 1"]), "guards_code"),
    "a tuple repeated": (with_json(guards_code=["(1,) * 99999999999 == 1"]), "guards_code"),
    "brackets in each other": (with_expression("(" * 2000 + "1" + ")" * 2000), "expr_str"),
}


@pytest.mark.parametrize("case", TEXTS)
def test_as_a_program_with(case: str, records: Records, tmp_path: Path) -> None:
    make, words = TEXTS[case]

    assert words in refusal(make, records, tmp_path)


EXAMPLES: dict[str, tuple[Callable[[], bytes], str]] = {
    "a view of one element": (lambda: saved(((torch.zeros(1).expand(1 << 20, 1 << 20),), {})), "larger than itself"),
    "no tensors": (lambda: saved("hello"), "plain example inputs"),
    "an old archive": (lambda: saved(((torch.zeros(1),), {}), _use_new_zipfile_serialization=False), "zip"),
    "nothing": (lambda: b"", "too short"),
}


@pytest.mark.parametrize("case", EXAMPLES)
def test_as_example_inputs_with(case: str, records: Records, tmp_path: Path) -> None:
    content, words = EXAMPLES[case]

    assert words in refusal(lambda path, records: write(path, {**records, pt2.SAMPLE_INPUTS: content()}), records, tmp_path)


@pytest.mark.parametrize("name", [pt2.PROGRAM, pt2.WEIGHTS_CONFIG, pt2.SAMPLE_INPUTS, "archive_version", FIRST_WEIGHT])
def test_as_one_without(name: str, records: Records, tmp_path: Path) -> None:
    def make(path: Path, records: Records) -> None:
        del records[name]
        write(path, records)

    assert "no record" in refusal(make, records, tmp_path)


def test_while_the_same_records_unchanged_are_loaded(records: Records, tmp_path: Path) -> None:
    assert load(write(tmp_path / FILE, records))


@pytest.mark.parametrize("guard", ["L['x'].size()[0] ** 2 <= 99", "4 * L['x'].size()[0] >= 8", "L['x']['y'][0].stride()[1] == 1"])
def test_and_so_are_guards_that_torch_writes(guard: str, records: Records, tmp_path: Path) -> None:
    with_json(guards_code=[guard])(tmp_path / FILE, dict(records))

    assert load(tmp_path / FILE)
