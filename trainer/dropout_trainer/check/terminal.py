"""The results for people: a table on a terminal, plain lines in a log."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dropout_api.verdict import CheckResult, Outcome, Verdict
from dropout_trainer.check.results import Result

OUTCOMES = {
    Outcome.PASSED: ("passed", "green"), Outcome.FAILED: ("failed", "bold red"), Outcome.NOT_APPLICABLE: ("not applicable", "dim"),
    Outcome.COULD_NOT_RUN: ("could not run", "yellow"),
}
VERDICTS = {
    Verdict.PASSED: ("passed", "bold green"), Verdict.FAILED: ("failed", "bold red"), Verdict.COULD_NOT_RUN: ("undecided", "bold yellow"),
}

BRIEF = 3


def show(result: Result, console: Console, verbose: bool = False) -> None:
    """The checks of one target, then its verdict in one line."""
    if result.checks and console.is_terminal:
        console.print(table(result, verbose))
    elif result.checks:
        for line in lines(result.checks, verbose):
            console.print(Text(line), soft_wrap=True)
    console.print(verdict(result), soft_wrap=True)
    if console.is_terminal:
        console.print()


def table(result: Result, verbose: bool = False) -> Table:
    made = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    made.add_column("check", no_wrap=True)
    made.add_column("outcome", no_wrap=True)
    made.add_column("basis", no_wrap=True, style="dim")
    made.add_column("evidence", overflow="fold", ratio=1)
    for check in result.checks:
        word, style = OUTCOMES[check.outcome]
        evidence = Text(printable(check.evidence))
        for line in below(check, verbose):
            evidence.append(f"\n{line}", "" if line.startswith("remedy") else "dim")
        made.add_row(Text(printable(check.name)), Text(word, style), Text(check.basis.lower()), evidence)
    return made


def lines(checks: list[CheckResult], verbose: bool = False) -> list[str]:
    """One line for each check, and indented below it where it failed, why, and what to do."""
    made = []
    for check in checks:
        made.append(f"  {OUTCOMES[check.outcome][0]:<14} {printable(check.name):<23} {check.basis.lower():<9} {printable(check.evidence)}")
        made += [f"{'':17}{line}" for line in below(check, verbose)]
    return made


def below(check: CheckResult, verbose: bool) -> list[str]:
    """What stands under a check's evidence: the place, unless the evidence names it already, the remedy, and the graph around it."""
    if check.outcome in (Outcome.PASSED, Outcome.NOT_APPLICABLE):
        return []
    told = check.where is None or (check.where.op in check.evidence and check.where.layer in check.evidence)
    made = [] if told else [f"where: {printable(str(check.where))}"]
    made += [f"remedy: {printable(check.remedy)}"] if check.remedy else []
    excerpt = check.excerpt.splitlines() if check.excerpt and verbose else []
    return [*made, *(f"  {printable(line)}" for line in excerpt)]


def brief(checks: list[CheckResult]) -> str:
    """The checks that fail first, as the message of an assertion; the others are mostly their consequence."""
    made = []
    for check in checks[:BRIEF]:
        made += [f"  {check.name}: {printable(check.evidence)}", *(f"    {line}" for line in below(check, verbose=False))]
    others = [check.name for check in checks[BRIEF:]]
    return "\n".join([*made, f"  and {', '.join(others)}"] if others else made)


def verdict(result: Result) -> Text:
    if result.error:
        return Text.assemble(("error", "bold red"), f": {printable(result.error)}")
    target = printable(result.target)
    word, style = VERDICTS[result.verdict]
    telling = Outcome(result.verdict.value)
    count = f"{sum(check.outcome is telling for check in result.checks)}{_of(result)} checks {OUTCOMES[telling][0]}"
    return Text.assemble(target, ": ", (word, style), f" ({count}, {result.seconds:.1f} s)")


def _of(result: Result) -> str:
    return "" if result.verdict is Verdict.PASSED else f" of {len(result.checks)}"


def printable(text: str) -> str:
    """Names and evidence come from whoever made the model: no character of them may steer a terminal or break a line."""
    return "".join(letter if letter.isprintable() else "�" for letter in " ".join(text.splitlines()))
