"""The audit as a table: one row for each version, then a line for each that did not pass."""

from rich.table import Table

from dropout_api.verdict import CheckResult, Outcome, Verdict
from dropout_trainer.verify import terminal
from dropout_trainer.verify.audit import Audit, Row

COLUMNS = {"gated": "statement", "files": "files", "tags": "tags", "signature": "signature", "config": "provenance"}
"""Heading, and the check that it shows."""


def show(found: Audit) -> None:
    """Prints to standard output."""
    console = terminal.console()
    if not found.rows:
        console.print("no version is registered")
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("version", "aliases", *COLUMNS, "eval mode", "verdict"):
        table.add_column(heading, overflow="fold")
    for row in found.rows:
        marks = [terminal.mark(row.check(name)) for name in COLUMNS.values()]
        name, aliases = terminal.plain(f"{row.model}/{row.version}"), terminal.plain(", ".join(row.aliases))
        table.add_row(name, aliases, *marks, terminal.mark(_behaviour(row)), terminal.word(row.verdict))
    console.print(table)
    for row in found.rows:
        if row.verdict is not Verdict.PASSED:
            done = " (quarantined)" if row.quarantined else ""
            console.print()
            console.print(terminal.plain(f"{row.model}/{row.version}{done}: {row.reason}"), soft_wrap=True)


def _behaviour(row: Row) -> CheckResult | None:
    """What was measured on the program: the worst of the checks that have no column of their own."""
    others = [check for check in row.checks if check.name not in COLUMNS.values()]
    for outcome in (Outcome.FAILED, Outcome.COULD_NOT_RUN):
        for check in others:
            if check.outcome is outcome:
                return check
    return others[-1] if others else None
