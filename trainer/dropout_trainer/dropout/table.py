"""A dropout plan as people see it: a table for `dropout plan`, lines for a training's log."""

import logging
from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from dropout_api.candidate import PlanRow
from dropout_api.dropout import DropoutSpec
from dropout_trainer.dropout.schedules import described

COLUMNS = ("layer", "kind", "type", "action", "rate", "schedule", "implementation", "why")
log = logging.getLogger(__name__)


def render(plan: Sequence[PlanRow]) -> Table:
    """A row for each place; the warnings below, each once with the layers that it is about."""
    table = Table(box=None, padding=(0, 2, 0, 0), caption=_warnings(plan), caption_justify="left")
    for heading in COLUMNS:
        table.add_column(heading, justify="right" if heading == "rate" else "left", overflow="fold")
    for row in plan:
        texts = (row.layer, row.kind.value, row.type, row.action.value, f"{row.rate:g}", described(row.rate, row.schedule),
                 row.implementation.value, row.why)
        table.add_row(*map(_plain, texts), style="yellow" if row.warnings else "")
    return table


def log_plan(plan: Sequence[PlanRow], asked: DropoutSpec) -> None:
    """A line for each place and each warning, to the log."""
    for row in plan:
        log.info("dropout  %s  %s  %s %g  by %s", row.place, row.kind.value, row.action.value, row.rate, row.why)
    for warning in told_once(plan):
        log.warning("dropout  %s", warning)
    if asked.rate and not plan:
        log.warning("spec.dropout.rate is set, but the model has no dropout layer")


def told_once(plan: Sequence[PlanRow]) -> list[str]:
    """Each warning of a plan as a line, with the layers that it is about in front."""
    about: dict[str, dict[str, None]] = {}
    for row in plan:
        for warning in row.warnings:
            about.setdefault(warning, {})[row.layer] = None
    return [f"{', '.join(layers)}: {warning}" for warning, layers in about.items()]


def _warnings(plan: Sequence[PlanRow]) -> Text | None:
    lines = list(map(_plain, told_once(plan)))
    return Text("\n").join(lines) if lines else None


def _plain(text: str) -> Text:
    """As it is: no markup and no control character, because layers are named by whoever wrote the model."""
    return Text("".join(letter if letter.isprintable() else "�" for letter in text))
