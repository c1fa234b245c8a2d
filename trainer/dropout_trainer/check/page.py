"""The results as one self-contained HTML page, in the form of the gate's report."""

from html import escape

from dropout_trainer.check.results import Document, Result
from dropout_trainer.verify.report import document as as_page
from dropout_trainer.verify.report import section


def of(document: Document) -> str:
    facts = {"gate version": document.gate_version, **document.versions}
    rows = "".join(f"<dt>{escape(name)}</dt><dd><code>{escape(value)}</code></dd>" for name, value in facts.items())
    return as_page("Eval-mode check", "".join(map(_section, document.results)) + f"<dl>{rows}</dl>")


def _section(result: Result) -> str:
    error = f"<p>{escape(result.error)}</p>" if result.error else ""
    measured = {name: f"{value:.4f}" for name, value in result.metrics.items()}
    return section(result.target, result.verdict, result.checks, measured) + error
