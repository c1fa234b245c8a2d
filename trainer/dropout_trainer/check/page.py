"""The results as one self-contained HTML page, in the form of the gate's report."""

from html import escape

from dropout_api.verdict import Verdict
from dropout_trainer.check.results import Document, Result
from dropout_trainer.verify.report import document as as_page
from dropout_trainer.verify.report import section

TITLES = {Verdict.PASSED: "Passed", Verdict.FAILED: "Failed", Verdict.COULD_NOT_RUN: "Undecided"}


def of(document: Document) -> str:
    facts = {"gate version": document.gate_version, **document.versions}
    return as_page("Eval-mode check", "".join(_section(result, facts) for result in document.results))


def _section(result: Result, facts: dict[str, str]) -> str:
    error = f"<p>{escape(result.error)}</p>" if result.error else ""
    measured = {name: f"{value:.4f}" for name, value in result.metrics.items()}
    return section(result.target, result.verdict, result.checks, {**facts, **measured}) + error
