from pathlib import Path

import pytest
from dropout_testing import zoo

from dropout_api.candidate import LayerMode
from dropout_api.spec import QualityBar
from dropout_trainer.gate import attested, gate, quality
from dropout_trainer.gate.program import Subject
from dropout_trainer.gate.verdict import Basis, CheckResult, GateReport, Outcome, could_not_run, failed, not_applicable, passed


def test_when_it_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def shaky(_: Subject) -> CheckResult:
        raise ZeroDivisionError("no rows")

    monkeypatch.setattr(gate, "CHECKS", (shaky,))

    report = gate.examine(zoo.subject(tmp_path, zoo.SOUND["mlp"].build()))

    assert not report.passed
    assert report.message == "shaky: the check could not run: ZeroDivisionError no rows"


def test_nor_is_a_report_without_any_pass() -> None:
    assert not GateReport(checks=[]).passed
    assert not GateReport(checks=[not_applicable("a", "")]).passed
    assert not GateReport(checks=[passed("a", ""), could_not_run("b", "")]).passed
    assert GateReport(checks=[passed("a", ""), not_applicable("b", "")]).passed


def test_and_a_failure_is_named_before_it() -> None:
    report = GateReport(checks=[could_not_run("first", "x"), failed("second", "y", "z")])

    assert [check.name for check in report.failed] == ["second", "first"]
    assert report.message.startswith("second: y. Remedy: z")


def test_nor_is_a_metric_that_is_not_a_number() -> None:
    result = quality.quality({"test_loss": float("nan"), "test_accuracy": 1.0}, [QualityBar(metric="accuracy", min=0.5)])

    assert (result.outcome, result.evidence) == (Outcome.FAILED, "test_loss is nan")


def test_and_what_only_the_training_pod_saw_is_marked_as_attested(tmp_path: Path) -> None:
    subject = zoo.subject(tmp_path, zoo.SOUND["mlp"].build())
    left = [LayerMode(layer="", type="Net"), LayerMode(layer="features.3", type="MyDropout")]

    result = attested.left_in_training(Subject(subject.program, zoo.config_of(left_in_training=left), subject.heldout))

    assert (result.outcome, result.basis) == (Outcome.FAILED, Basis.ATTESTED)
    assert "MyDropout in layer 'features.3'" in result.evidence
