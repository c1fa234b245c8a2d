"""The results as a JUnit report, which CI systems show: a suite for each target, a test case for each check."""

import re
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from xml.etree import ElementTree as ET

from dropout_api.verdict import CheckResult, Outcome
from dropout_trainer.check.results import Document, Result

# XML 1.0 has no way to write these, escaped or not.
FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
TAGS = {Outcome.FAILED: "failure", Outcome.COULD_NOT_RUN: "error", Outcome.NOT_APPLICABLE: "skipped"}


def report(document: Document, now: datetime) -> bytes:
    """The whole file. `now` is when the check ended."""
    root = ET.Element("testsuites")
    for number, result in enumerate(document.results):
        root.append(_suite(result, number, document.versions, now))
    ET.indent(root)
    written: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return written + b"\n"


def _suite(result: Result, number: int, versions: Mapping[str, str], now: datetime) -> ET.Element:
    cases = [_case(result.target, check) for check in result.checks] or [_unjudged(result)]
    counts = Counter(child.tag for case in cases for child in case)
    suite = ET.Element("testsuite", {
        "id": str(number), "name": _text(result.target), "package": "dropout", "hostname": "localhost",
        "timestamp": now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S"), "time": f"{result.seconds:.3f}", "tests": str(len(cases)),
        "failures": str(counts["failure"]), "errors": str(counts["error"]), "skipped": str(counts["skipped"]),
    })
    properties = ET.SubElement(suite, "properties")
    for name, value in {"verdict": result.verdict.value, **versions}.items():
        ET.SubElement(properties, "property", {"name": _text(name), "value": _text(value)})
    suite.extend(cases)
    for name in ("system-out", "system-err"):
        ET.SubElement(suite, name)
    return suite


def _case(target: str, check: CheckResult) -> ET.Element:
    case = ET.Element("testcase", {"classname": _text(target), "name": _text(check.name), "time": "0"})
    if check.outcome is Outcome.NOT_APPLICABLE:
        ET.SubElement(case, "skipped", {"message": _text(check.evidence)})
    elif check.outcome in TAGS:
        found = ET.SubElement(case, TAGS[check.outcome], {"message": _text(check.evidence), "type": check.outcome.value})
        found.text = _text("\n".join(_details(check)))
    return case


def _details(check: CheckResult) -> list[str]:
    made = [check.evidence, f"basis: {check.basis.lower()}"]
    made += [f"where: {check.where}"] if check.where else []
    made += [f"remedy: {check.remedy}"] if check.remedy else []
    return made + ([check.excerpt] if check.excerpt else [])


def _unjudged(result: Result) -> ET.Element:
    case = ET.Element("testcase", {"classname": _text(result.target), "name": "target", "time": "0"})
    error = ET.SubElement(case, "error", {"message": _text(result.message), "type": result.exit_code.name})
    error.text = _text(result.message)
    return case


def _text(text: str) -> str:
    return FORBIDDEN.sub("�", text)
