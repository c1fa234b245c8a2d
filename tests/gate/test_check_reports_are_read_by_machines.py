"""One run of the command over a sound model, a broken one, one that is undecided and one that raises; every file that it writes."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import torch
from dropout_testing import shop

from dropout_api.names import ExitCode
from dropout_api.verdict import CheckResult, Location, Outcome
from dropout_trainer.check import junit, page, results, terminal
from dropout_trainer.gate.verdict import GateReport, failed

SHOP = "dropout_testing.shop"
TARGETS = [f"{SHOP}:chatty", f"{SHOP}:live", "pickled.pth", f"{SHOP}:closed"]
FILES = ["--json", "-", "--junit", "out/junit.xml", "--html", "out/page.html"]
# What CI systems' schemas agree on: attributes of each element, those that must be there first.
ATTRIBUTES: dict[str, tuple[set[str], set[str]]] = {
    "testsuites": (set(), {"name", "time", "tests", "failures", "errors"}),
    "testsuite": ({"name", "tests", "failures", "errors", "time", "timestamp", "hostname", "id", "package"}, {"skipped"}),
    "properties": (set(), set()), "property": ({"name", "value"}, set()), "testcase": ({"name", "classname", "time"}, set()),
    "failure": ({"type"}, {"message"}), "error": ({"type"}, {"message"}), "skipped": (set(), {"message"}),
    "system-out": (set(), set()), "system-err": (set(), set()),
}


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str
    json: Any
    junit: ET.Element
    html: str


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    folder = tmp_path_factory.mktemp("check")
    torch.save(shop.Ranker(), folder / "pickled.pth")
    command = [sys.executable, "-m", "dropout_trainer", "check", *TARGETS, *FILES]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=280)
    tree = ET.parse(folder / "out/junit.xml").getroot()
    return Done(run.returncode, run.stdout, run.stderr, json.loads(run.stdout), tree, (folder / "out/page.html").read_text())


def test_the_worst_target_decides_the_exit_code(done: Done) -> None:
    assert done.code == done.json["exitCode"] == ExitCode.USER_CODE
    assert [result["exitCode"] for result in done.json["results"]] == [0, 1, 3, 70]


def test_a_failure_is_worse_than_what_is_undecided_and_an_error_is_worse_than_both() -> None:
    codes = [ExitCode.OK, ExitCode.UNDECIDED, ExitCode.REJECTED, ExitCode.USAGE, ExitCode.USER_CODE]

    assert [results.worst(codes[: end + 1]) for end in range(len(codes))] == codes
    assert [results.worst(codes[end::-1]) for end in range(len(codes))] == codes


def test_json_has_these_fields(done: Done) -> None:
    assert set(done.json) == {"schemaVersion", "gateVersion", "versions", "exitCode", "results"}
    assert {"dropout-operator", "python", "torch"} <= set(done.json["versions"])
    sound, live, undecided, closed = done.json["results"]
    assert set(sound) == {"target", "verdict", "exitCode", "message", "seconds", "checks", "metrics"}
    assert set(closed) == set(sound) | {"error"}
    assert [result["verdict"] for result in (sound, live, undecided, closed)] == ["Passed", "Failed", "CouldNotRun", "CouldNotRun"]
    found = next(check for check in live["checks"] if check["outcome"] == "Failed" and "where" in check)
    assert {"name", "outcome", "basis", "evidence", "where", "remedy"} <= set(found)
    assert {"layer", "op"} <= set(found["where"])


def test_json_can_be_read_back(done: Done) -> None:
    document = results.Document.model_validate(done.json)

    assert [result.target for result in document.results] == TARGETS


def test_what_a_model_prints_is_no_part_of_it(done: Done) -> None:
    assert "the shop opens" in done.err
    assert "the shop opens" not in done.out


def test_people_read_the_table_on_standard_error_then(done: Done) -> None:
    closed = f"error: {TARGETS[3]}: the model, given its example, raised RuntimeError: the shop is closed ("
    for words in (f"{TARGETS[0]}: passed (", f"{TARGETS[1]}: failed (", "pickled.pth: undecided (", closed, "remedy: "):
        assert words in done.err
    assert "Traceback" not in done.err


def test_junit_has_the_shape_that_ci_systems_take(done: Done) -> None:
    for element in done.junit.iter():
        needed, allowed = ATTRIBUTES[element.tag]
        assert needed <= set(element.attrib) <= needed | allowed, element.tag
    for suite in done.junit:
        assert [child.tag for child in suite] == ["properties", *["testcase"] * int(suite.attrib["tests"]), "system-out", "system-err"]


def test_junit_has_a_case_for_each_check_and_counts_them(done: Done) -> None:
    for suite, result in zip(done.junit, done.json["results"], strict=True):
        cases = suite.findall("testcase")
        assert suite.attrib["name"] == result["target"]
        assert [case.attrib["name"] for case in cases] == ([check["name"] for check in result["checks"]] or ["target"])
        for tag, count in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
            assert len(suite.findall(f"testcase/{tag}")) == int(suite.attrib[count])
    undecided, closed = done.junit[2], done.junit[3]
    assert [case[0].tag for case in (undecided.findall("testcase")[0], closed.findall("testcase")[0])] == ["error", "error"]
    assert closed.find("testcase/error").attrib["type"] == "USER_CODE"  # type: ignore[union-attr]


def test_the_page_names_layer_and_remedy(done: Done) -> None:
    assert "Live" in done.html
    assert "Remedy: " in done.html
    assert "the shop is closed" in done.html


def hostile() -> results.Document:
    """A report on a model whose names are meant for the reader's terminal, browser and parser."""
    check = failed("graph", "</failure><b>\x1b[31m\x00\ufffe & ]]>", "<script>\x07", Location(layer="[red]\x1b", op='"<op>'))
    return results.Document.of([results.Result.of_report("<t>\x1b[2J\n:x", GateReport(checks=[check]), 0.1)])


def test_no_name_in_a_model_leaves_its_place_in_a_report() -> None:
    document = hostile()
    tree = ET.fromstring(junit.report(document, datetime(2026, 1, 1, tzinfo=UTC)))
    html = page.of(document)
    text = "\n".join([*terminal.lines(document.results[0].checks, verbose=True), terminal.verdict(document.results[0]).plain])

    assert tree.find("testsuite/testcase/failure").attrib["message"].startswith("</failure><b>")  # type: ignore[union-attr]
    assert "<script>" not in html
    assert "<t>" not in html
    assert not set(text) & {"\x1b", "\x00", "\x07"}
    assert len(text.splitlines()) == 4, text


def test_a_check_that_had_nothing_to_look_at_is_skipped() -> None:
    idle = CheckResult(name="parity", outcome=Outcome.NOT_APPLICABLE, evidence="nothing to compare with")
    document = results.Document.of([results.Result.of_report("x", GateReport(checks=[idle]), 0.1)])

    tree = ET.fromstring(junit.report(document, datetime(2026, 1, 1, tzinfo=UTC)))

    assert tree.find("testsuite/testcase/skipped").attrib["message"] == "nothing to compare with"  # type: ignore[union-attr]
