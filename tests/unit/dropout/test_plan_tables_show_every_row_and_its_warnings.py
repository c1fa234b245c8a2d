"""The table of a plan has every row as it is, each warning once with all its layers, and no markup or control character of a name."""

import io

from rich.console import Console

from dropout_trainer.dropout import PlanRow
from dropout_trainer.dropout.table import render


def text(*rows: PlanRow) -> list[str]:
    console = Console(file=io.StringIO(), width=200)
    console.print(render(rows))
    return [line.rstrip() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]


def row(layer: str, *warnings: str, **fields: object) -> PlanRow:
    return PlanRow.model_validate({
        "layer": layer, "kind": "Standard", "type": "Dropout", "rate": 0.25, "why": "model", "warnings": list(warnings), **fields,
    })


def test_columns_and_warnings() -> None:
    lines = text(
        row("features.0", "too high", "too small"), row("head", "too small"), row("head", "too small", action="Insert"),
        row("lstm", kind="DropConnect", type="LSTM + DropConnect", action="Wrap", why="rule 2 (l*)", implementation="Fast",
            schedule={"kind": "Linear", "fraction": 0.1}),
    )
    assert lines[0].split() == ["layer", "kind", "type", "action", "rate", "schedule", "implementation", "why"]
    assert lines[1].split() == ["features.0", "Standard", "Dropout", "Set", "0.25", "Constant", "Native", "model"]
    assert " ".join(lines[4].split()) == "lstm DropConnect LSTM + DropConnect Wrap 0.25 Linear 0 → 0.25 until 10 % Fast rule 2 (l*)"
    assert lines[5:] == ["features.0: too high", "features.0, head: too small"]


def test_names_are_text() -> None:
    assert text(row("[red]a\x1b[0m"))[1].startswith("[red]a�[0m ")
