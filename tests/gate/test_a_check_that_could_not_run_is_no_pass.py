from pathlib import Path

import pytest
import torch
from dropout_testing import zoo

from dropout_api.metrics import QualityBar
from dropout_api.verdict import Basis, CheckResult, Location, Outcome, Verdict
from dropout_trainer.gate import gate, quality
from dropout_trainer.gate.inputs import Inputs
from dropout_trainer.gate.target import Target
from dropout_trainer.gate.verdict import GateReport, could_not_run, failed, not_applicable, passed


def test_when_it_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def shaky(name: str, target: Target, inputs: Inputs) -> CheckResult:
        raise ZeroDivisionError("no rows")

    monkeypatch.setattr(gate, "BEHAVIOUR", {"shaky": shaky})
    made = zoo.candidate(tmp_path / "candidate", zoo.SOUND["mlp"].build())

    report = gate.inspect(made.folder).report

    assert report.verdict is Verdict.COULD_NOT_RUN
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
    heldout = zoo.heldout_of(zoo.SOUND["mlp"].build())
    bars = [QualityBar(metric="accuracy", max=0.5), QualityBar(metric="roc_auc_macro", min=0.5)]

    result = quality.quality(quality.Exam(zoo.config_of().task, heldout, heldout.output * torch.nan, bars))

    assert (result.outcome, result.evidence) == (Outcome.FAILED, "test_loss is nan")


def test_and_what_only_the_training_pod_saw_is_marked_as_attested() -> None:
    where = Location(layer="features.3", op="MyDropout")
    told = [failed("module_walk", "MyDropout in layer 'features.3' stayed in training mode after eval()", "super().train(mode)", where)]

    results = gate.attested(zoo.config_of(attested=told))

    assert {result.name for result in results} == set(gate.SOURCE_CHECKS)
    assert {result.basis for result in results} == {Basis.ATTESTED}
    assert (results[0].outcome, results[0].where) == (Outcome.FAILED, where)


def test_nor_is_a_check_of_which_the_training_pod_says_nothing() -> None:
    results = gate.attested(zoo.config_of(attested=[]))

    assert {result.outcome for result in results} == {Outcome.COULD_NOT_RUN}


def test_and_a_training_pod_cannot_attest_what_is_measured() -> None:
    forged = [passed("graph", "nothing to see"), passed("module_walk", "fine")]

    assert "graph" not in {result.name for result in gate.attested(zoo.config_of(attested=forged))}
