"""Judges every animal and prints a table: its name, what was found first, and whether that is right. Exit code 1 when one is not."""

import sys
import warnings

from rich.console import Console
from rich.table import Table

from dropout_testing.zoo import animals
from dropout_testing.zoo.entries import Broken, Sound, as_told, judge
from dropout_trainer.gate.verdict import GateReport


def right(animal: Sound | Broken, report: GateReport) -> bool:
    return report.passed if isinstance(animal, Sound) else as_told(animal, report)


def found(report: GateReport) -> str:
    if not report.failed:
        return f"passed by {len(report.checks)} checks"
    return report.failed[0].sentence.split(". Remedy")[0]


def main() -> int:
    console = Console(width=None if sys.stdout.isatty() else 180)
    wrong = 0
    table = Table(title="The gate's zoo")
    for column in ("Network", "Is", "Found", "Right"):
        table.add_column(column)
    with console.status("judging"):
        for name, animal in animals(*sys.argv[1:]).items():
            report = judge(animal)
            good = right(animal, report)
            wrong += not good
            if not console.is_terminal:
                print(f"{'ok ' if good else 'NOT'} {name}: {found(report)}", file=sys.stderr, flush=True)
            table.add_row(name, type(animal).__name__.lower(), found(report), "[green]yes" if good else "[red]NO")
    console.print(table)
    console.print(f"{table.row_count - wrong} passed, {wrong} failed")
    return 1 if wrong else 0


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    sys.exit(main())
