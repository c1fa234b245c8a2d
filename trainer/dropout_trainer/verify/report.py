"""The gate's report as two files: JSON for machines, one self-contained HTML page for people."""

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from dropout_api.candidate import REPORT_JSON
from dropout_api.task import VerifyTask
from dropout_api.verdict import CheckResult, Outcome, Verdict
from dropout_trainer.gate.gate import Inspection

REPORT_HTML = "report.html"
COLOURS = {Outcome.PASSED: "#1a7f37", Outcome.FAILED: "#cf222e", Outcome.NOT_APPLICABLE: "#6e7781", Outcome.COULD_NOT_RUN: "#9a6700"}
WORDS = {
    Outcome.PASSED: "passed", Outcome.FAILED: "failed", Outcome.NOT_APPLICABLE: "not applicable", Outcome.COULD_NOT_RUN: "could not run",
}
STYLE = """
:root{color-scheme:light dark}body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:3rem auto;padding:0 1rem}
h1{font-size:1.5rem;margin:2rem 0 1rem;overflow-wrap:anywhere}
.verdict{display:inline-block;color:#fff;border-radius:1rem;padding:.1rem .8rem;font-weight:600}
table{border-collapse:collapse;width:100%;margin:1.5rem 0}td,th{text-align:left;vertical-align:top;padding:.55rem .7rem;
border-bottom:1px solid #8884}th{font-size:.8rem;opacity:.7}code{font-size:.85em;overflow-wrap:anywhere}
pre{font-size:.8em;overflow-x:auto;max-width:38rem}
.remedy{opacity:.8}.basis{font-size:.8rem;opacity:.7}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.2rem 1rem}dt{opacity:.7}dd{margin:0}
"""


def write(folder: Path, task: VerifyTask, inspection: Inspection) -> Path:
    """Both files in `folder`, which is made. Returns it."""
    folder.mkdir()
    report = inspection.report
    summary = {"verdict": "Passed" if report.passed else "Failed", "sha256": inspection.sha256, "run": task.trained.id}
    (folder / REPORT_JSON).write_text(json.dumps(summary | report.to_wire(), indent=1), encoding="utf-8")
    (folder / REPORT_HTML).write_text(page(task, inspection), encoding="utf-8")
    return folder


def page(task: VerifyTask, inspection: Inspection) -> str:
    """The HTML page."""
    report = inspection.report
    facts = {
        "job": f"{task.job.namespace}/{task.job.name}", "run": task.trained.id, "program SHA-256": inspection.sha256 or "unknown",
        "image": task.image_id or "unknown", "gate version": report.gate_version,
        **{name: f"{value:.6g}" for name, value in report.metrics.items()},
    }
    return document(f"Gate: {report.verdict}", section("Eval-mode gate", report.verdict, report.checks, facts))


def document(title: str, body: str) -> str:
    """A page that needs no other file. `body` is HTML."""
    return f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style>{body}</html>\n'


def section(title: str, verdict: Verdict, checks: Sequence[CheckResult], facts: Mapping[str, str]) -> str:
    """A verdict, what it is of, and its checks, as HTML. All texts are escaped: some of them come from whoever made the model."""
    outcome = Outcome(verdict.value)
    rows = "".join(f"<dt>{escape(name)}</dt><dd><code>{escape(value)}</code></dd>" for name, value in facts.items())
    return (
        f'<h1>{escape(title)} <span class="verdict" style="background:{COLOURS[outcome]}">{WORDS[outcome]}</span></h1>'
        f"<dl>{rows}</dl><table><tr><th>Check</th><th>Outcome</th><th>Evidence</th></tr>{''.join(map(_row, checks))}</table>"
    )


def table(checks: list[CheckResult]) -> str:
    """The same for a terminal or a pod's log: one line for each check."""
    return "\n".join(f"  {WORDS[check.outcome]:<14} {check.name:<18} {check.basis:<9} {check.evidence}" for check in checks)


def _row(check: CheckResult) -> str:
    remedy = f'<div class="remedy">Remedy: {escape(check.remedy)}</div>' if check.remedy else ""
    where = f"<div><code>{escape(check.where.op)}</code> in <code>{escape(check.where.layer)}</code></div>" if check.where else ""
    excerpt = f"<pre>{escape(check.excerpt)}</pre>" if check.excerpt else ""
    return (
        f'<tr><td>{escape(check.name)}<div class="basis">{check.basis}</div></td>'
        f'<td style="color:{COLOURS[check.outcome]};white-space:nowrap">{WORDS[check.outcome]}</td>'
        f"<td>{escape(check.evidence)}{where}{remedy}{excerpt}</td></tr>"
    )
