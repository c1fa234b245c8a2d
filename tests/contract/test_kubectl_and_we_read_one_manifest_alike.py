"""The real kubectl reads a manifest without a server (`kubectl label --local`), and what it reads is what we read."""

import json
import os
import random
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from dropout_testing.control_plane import find_binaries

from dropout_trainer.errors import StageFailure
from dropout_trainer.manifest import parse_manifests, read_manifests
from dropout_trainer.manifest.yaml11 import UnreadableError, parse

ROOT = Path(__file__).parents[2]
HEAD = "apiVersion: example.dev/v1\nkind: Thing\nmetadata: {name: a}\n"
NUMBERS = """
1e-3 1E5 1e3 1.5e+3 .5 -.5 +.5 1. 1.0 10.0 -0.0 0.1 0 00 017 08 09.5 -017 0o17 0O17 -0o7 0x1F 0X1f -0x1F 0b101 -0b11 0B1 0b+1 1_000 1__0
1_ 0_7 0x_1F 1_e3 0.0_1 _1 .5_0 1e 0x 1.5.5 1:30 190:20:30 12345678901234567890 123456789012345678901234 -9223372036854775809
9223372036854775807 9223372036854775808 18446744073709551616 1e20 1e21 1e22 1e400 -1e400 1e-400 1.7976931348623159e308
0xfffffffffffffffff 0x1p4
"""
WORDS = """
y Y n N yes Yes YES yEs no No NO on On ON oN off Off OFF oFF true True TRUE tRue false False FALSE ~ null Null NULL nULL nan inf +inf
infinity None . + = << 2024-01-01 2001-12-14t21:59:43.10-05:00 2001-1-1 12:30:45 1.2.3 v1 100m 1Gi
"""
STRUCTURES = {
    "duplicate keys": "a: 1\na: 2\n", "keys that are no text": "1: a\n1.5: b\ntrue: c\n0x10: d\noff: e\n1e3: f\n",
    "anchors": "a: &x [1, 2]\nb: *x\n", "a merge": "b: &x {p: 1, q: 2}\nd: {<<: *x, p: 5}\n",
    "a merge below a key": "b: &x {p: 1, q: 2}\nd: {p: 5, <<: *x}\n",
    "merges": "b: &x {p: 1}\nd: &y {p: 2, r: 3}\nc: {<<: [*x, *y], z: 1}\n",
    "quotes": "a: '1'\nb: \"off\"\nc: ''\nd:\n",
    "blocks": "a: |\n  1\n  2\nb: >-\n  x\n  y\n",
    "tags": "a: !!str 1\nb: !!int '3'\nc: !!float 1\nd: !!bool 'yes'\ne: ! 1\nf: !!binary aGk=\n",
    "documents": f"---\n---   # next\n{HEAD}a: 1\n", "a document's end": "a: 1\n...\n",
    "a sequence of mappings": "a:\n- b: 1\n  c: 2\n- d: 3\n",
}


@pytest.fixture(scope="session")
def kubectl() -> Path:
    """kubectl as the cluster's build makes it, or one on the path. Where there is none the test is skipped, on CI it fails."""
    folder = find_binaries()
    found = folder / "kubectl" if folder else Path(shutil.which("kubectl") or "")
    if not found.is_file():
        reason = "no kubectl here: build it with hack/cluster/cluster build"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    return found


def read_by(kubectl: Path, text: str, folder: Path) -> list[dict[str, Any]] | None:
    """What kubectl reads, but for a label that it was told to set; None where it refuses the text."""
    path = folder / "manifest"
    path.write_text(text, encoding="utf-8")
    home = {"HOME": str(folder), "PATH": os.environ["PATH"]}
    command = [kubectl, "label", "--local", "-o", "json", "-f", path, "read=by-kubectl"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=home)
    if done.returncode:
        return None
    decoder, found, rest = json.JSONDecoder(), [], done.stdout.strip()
    while rest:
        body, end = decoder.raw_decode(rest)
        del body["metadata"]["labels"]
        found.append(body)
        rest = rest[end:].strip()
    return found


def exactly(value: object) -> str:
    """Text in which 1, 1.0, true and "1" differ."""
    return json.dumps(value, sort_keys=True)


def as_floats_beyond_64_bits(value: Any) -> Any:
    """JSON has no types, so a float such as 1e20 comes back from kubectl in whole digits."""
    if isinstance(value, dict):
        return {key: as_floats_beyond_64_bits(item) for key, item in value.items()}
    if isinstance(value, list):
        return [as_floats_beyond_64_bits(item) for item in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) and not -(2**63) <= value < 2**63 else value


def assert_alike(kubectl: Path, text: str, folder: Path) -> None:
    theirs = read_by(kubectl, text, folder)
    assert theirs is not None
    assert exactly([document.body for document in parse_manifests(text)]) == exactly(as_floats_beyond_64_bits(theirs))


def test_plain_scalars(kubectl: Path, tmp_path: Path) -> None:
    scalars = [*NUMBERS.split(), *WORDS.split()]

    assert_alike(kubectl, HEAD + "values:\n" + "".join(f"- {scalar}\n" for scalar in scalars), tmp_path)


def test_two_thousand_scalars_of_the_signs_that_numbers_have(kubectl: Path, tmp_path: Path) -> None:
    source = random.Random(0)
    drawn = {"".join(source.choices("0017.eE+-_xob:", k=source.randint(1, 7))) for _ in range(3000)}

    def plain(scalar: str) -> bool:
        try:
            same = parse(f'- "{scalar}"\n')[0] == parse(f"- !!str {scalar}\n")[0]
            return same and not isinstance(parse(f"- {scalar}\n")[0][0], dict | list)
        except UnreadableError:
            return False

    scalars = sorted(scalar for scalar in drawn if plain(scalar))
    assert len(scalars) > 2000
    assert_alike(kubectl, HEAD + "values:\n" + "".join(f"- {scalar}\n" for scalar in scalars), tmp_path)


@pytest.mark.parametrize("name", STRUCTURES)
def test_structures(name: str, kubectl: Path, tmp_path: Path) -> None:
    assert_alike(kubectl, HEAD + STRUCTURES[name], tmp_path)


@pytest.mark.parametrize("text", [
    '{"apiVersion":"v1","kind":"X","metadata":{"name":"a"},"a":1e-3,"b":10.0,\t"c":null}\n\n{"apiVersion":"v1","kind":"X","metadata":{"name":"b"}}',
    "{apiVersion: v1, kind: X, metadata: {name: a}, a: yes}\n",
    f"apiVersion: v1\nkind: List\nitems:\n- {{{', '.join(HEAD.strip().splitlines())}}}\n- {{{', '.join(HEAD.strip().splitlines())}}}\n",
], ids=["JSON", "a flow mapping", "a List"])
def test_other_forms(text: str, kubectl: Path, tmp_path: Path) -> None:
    assert_alike(kubectl, text, tmp_path)


@pytest.mark.parametrize("path", sorted((ROOT / "crds/samples").glob("*.yaml")), ids=lambda path: path.stem)
def test_samples(path: Path, kubectl: Path, tmp_path: Path) -> None:
    assert_alike(kubectl, path.read_text(), tmp_path)


@pytest.mark.parametrize(("text", "says"), [
    ("a: .inf\n", "line 4: .inf cannot be written as JSON"), ("~: a\n", "line 4: a key is text"), ("a: *nope\n", "line 4"),
    ("? [1, 2]\n: x\n", "line 4: a key is text"), ("a: [1\n", "line 5"), ("a: b: c\n", "line 4, column 5"), ("\ta: 1\n", "line 4"),
    ("--- {a: 1}\n", "line 4: '{a: 1}' must stand on a line below"), ("a: !!int x\n", "'x' is no int"),
])
def test_what_kubectl_refuses_is_refused_with_its_line(text: str, says: str, kubectl: Path, tmp_path: Path) -> None:
    assert read_by(kubectl, HEAD + text, tmp_path) is None
    with pytest.raises(UnreadableError) as error:
        parse_manifests(HEAD + text)

    assert says in str(error.value)


def test_repeated_keys_are_told_with_their_lines() -> None:
    (yaml,) = parse_manifests(HEAD + "spec:\n  seed: 1\n  seed: 2\n")
    (json_document,) = parse_manifests('{"kind": "X",\n "spec": {"seed": 1, "seed": 2}}')

    assert [(item.key, item.line) for item in yaml.repeated] == [("seed", 6)]
    assert [item.key for item in json_document.repeated] == ["seed"]


@pytest.mark.parametrize("text", [
    "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefg", "bcdefgh", strict=True)),
    "a: &a [*a]\n", "a: " + "[" * 1000 + "]" * 1000,
], ids=["a bomb of aliases", "a circle", "a deep nest"])
def test_a_hostile_text_ends_with_one_line(text: str) -> None:
    with pytest.raises(UnreadableError):
        parse_manifests(text)


def test_a_file_that_is_not_there_or_no_text_has_its_own_exit_code(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    codes = []
    for name in ("missing", "binary"):
        with pytest.raises(StageFailure) as error:
            read_manifests(str(tmp_path / name))
        codes.append(error.value.exit_code)

    assert codes == [66, 78]
