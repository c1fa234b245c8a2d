"""`make bench`: every benchmark, in one run on one machine, as a table. Exit code 1 when a figure is out of its bound."""

import sys

import checkpoint_cost
import cold_start
import distributed_speed
import fast_dropout
import gate_cost
import operator_load
import tracking_cost
import training_speed
from rich.console import Console
from rich.table import Table


def main() -> int:
    table = Table("figure", "measured", "bound", title="dropout-operator: benchmarks")
    parts = (cold_start, fast_dropout, training_speed, distributed_speed, checkpoint_cost, tracking_cost, gate_cost, operator_load)
    figures = [figure for part in parts for figure in part.figures()]
    for figure in figures:
        style = "" if figure.holds else "bold red"
        table.add_row(figure.name, figure.value, figure.bound, style=style)
    Console().print(table)
    return 0 if all(figure.holds for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
