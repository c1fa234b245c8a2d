"""How `dropout verify models:/…` and `dropout audit` speak on a terminal."""

import sys
from collections.abc import Iterable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dropout_api.names import ExitCode
from dropout_api.verdict import CheckResult, Outcome, Verdict
from dropout_trainer.errors import StageFailure

MARKS = {
    Outcome.PASSED: ("passed", "green"), Outcome.FAILED: ("failed", "red"), Outcome.NOT_APPLICABLE: ("–", "dim"),
    Outcome.COULD_NOT_RUN: ("could not run", "yellow"),
}
VERDICTS = {
    Verdict.PASSED: ("passed", "bold green", ExitCode.OK), Verdict.FAILED: ("failed", "bold red", ExitCode.REJECTED),
    Verdict.COULD_NOT_RUN: ("undecided", "bold yellow", ExitCode.UNDECIDED),
}
WIDTH = 160
"""Columns of a table that goes to a file or a pipe."""


def console() -> Console:
    """Standard output, as wide as the terminal is."""
    return Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False)


def plain(text: str, style: str = "") -> Text:
    """Text as it is: no markup, and no control character, because names and evidence come from whoever made the version."""
    return Text("".join(letter if letter.isprintable() else "�" for letter in text), style=style)


def complain(failure: StageFailure) -> None:
    """One line on standard error."""
    print(plain(f"{failure.reason}: {failure.message}"), file=sys.stderr)


def mark(check: CheckResult | None) -> Text:
    """A check's outcome in one word."""
    return Text(*MARKS[check.outcome]) if check else Text("–", "dim")


def word(verdict: Verdict) -> Text:
    text, style, _ = VERDICTS[verdict]
    return Text(text, style)


def exit_code(verdict: Verdict) -> ExitCode:
    """0 passed, 1 failed, 3 undecided."""
    return VERDICTS[verdict][2]


def checks(title: str, verdict: Verdict, results: Iterable[CheckResult]) -> Table:
    """One row for each check, the remedy below its evidence."""
    table = Table(title=plain(title).append(": ").append_text(word(verdict)), title_justify="left", box=None, padding=(0, 2, 0, 0))
    table.add_column("check")
    table.add_column("outcome", no_wrap=True)
    table.add_column("evidence", overflow="fold")
    for result in results:
        evidence = plain(result.evidence)
        if result.remedy and result.outcome is not Outcome.PASSED:
            evidence.append("\n").append_text(plain(f"Remedy: {result.remedy}", "dim"))
        table.add_row(plain(result.name), mark(result), evidence)
    return table
