"""`dropout audit`: every registered version, looked at as it is now, whatever its tags say.

One version at a time is downloaded into a temporary folder and judged; what goes wrong with one is a row, not the end.
"""

import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dropout_api.candidate import PROGRAM
from dropout_api.model import Wire
from dropout_api.names import Tag
from dropout_api.verdict import CheckResult, Outcome, Verdict, verdict_of
from dropout_trainer.errors import StageFailure
from dropout_trainer.gate.verdict import RefusedError, could_not_run, failed, passed
from dropout_trainer.verify import binding, patience, target, terminal
from dropout_trainer.verify.target import Version

DEFAULT_LIMIT_GIB = 8.0
PAGE = 200
PICKLES = (".pkl", ".pickle", ".pth", ".pt", ".bin", ".ckpt", ".joblib")
MAX_TAG = 480


class Row(Wire):
    """One version and what was found."""

    model: str
    version: str
    aliases: list[str]
    """That pointed at it when it was looked at."""
    verdict: Verdict
    checks: list[CheckResult]
    quarantined: bool = False
    """Whether this audit took aliases from it or tagged it."""

    def check(self, name: str) -> CheckResult | None:
        return next((check for check in self.checks if check.name == name), None)

    @property
    def reason(self) -> str:
        """What failed, then what could not run; empty for a version that passed."""
        order = (Outcome.FAILED, Outcome.COULD_NOT_RUN)
        return "; ".join(f"{check.name}: {check.evidence}" for outcome in order for check in self.checks if check.outcome is outcome)


class Audit(Wire):
    """All rows, and what they say together: failed when one failed, undecided when one could not be judged."""

    verdict: Verdict
    rows: list[Row]


@dataclass(frozen=True)
class Wish:
    """What `dropout audit` was asked for."""

    models: Sequence[str] = ()
    """Full names; empty for all."""
    key: str | None = None
    as_json: bool = False
    quarantine: bool = False
    limit_gib: float = DEFAULT_LIMIT_GIB
    """Most that is downloaded of one version; the files beyond it are not looked at, and that is said."""


def main(wish: Wish) -> int:
    """Prints the audit. Returns an `ExitCode`: OK, REJECTED, UNDECIDED, USAGE or TRACKING_UNAVAILABLE."""
    patience.configure()
    try:
        public = target.public_keys(wish.key)
        client = target.connect()
        found = audit(client, wish, public)
    except StageFailure as failure:
        terminal.complain(failure)
        return failure.exit_code
    if wish.as_json:
        print(found.model_dump_json(by_alias=True, exclude_none=True, indent=1))
    else:
        from dropout_trainer.verify.audit_table import show

        show(found)
    return terminal.exit_code(found.verdict)


def audit(client: Any, wish: Wish, public: tuple[bytes, ...]) -> Audit:
    """Looks at every version of the models, and quarantines those that failed when that is wished.

    Raises StageFailure when a model is unknown or MLflow is away.
    """
    versions = [version for model in _models(client, wish.models) for version in _versions(client, model)]
    rows = []
    with _progress(len(versions)) as advance:
        for version in versions:
            row = look(client, version, public, int(wish.limit_gib * 2**30))
            rows.append(_quarantined(client, version, row) if wish.quarantine and row.verdict is Verdict.FAILED else row)
            advance(version.uri)
    verdicts = {row.verdict for row in rows}
    worst = next((verdict for verdict in (Verdict.FAILED, Verdict.COULD_NOT_RUN) if verdict in verdicts), Verdict.PASSED)
    return Audit(verdict=worst, rows=rows)


def look(client: Any, version: Version, public: tuple[bytes, ...], limit: int) -> Row:
    """The version's row. Raises StageFailure when MLflow is away, and nothing for what a version holds."""
    aliases: list[str] = []
    try:
        aliases = sorted(alias for alias, number in _aliases(client, version.name).items() if number == version.number)
        with tempfile.TemporaryDirectory(prefix="audit-") as name:
            folder = Path(name)
            checks, left_out = target.check(client, version, folder, public, limit)
            checks = [*checks, provenance(folder), *measured(folder, left_out)]
    except StageFailure as failure:
        target.asked("the registry", lambda: client.search_registered_models(max_results=1))  # away altogether: there is no going on
        checks = [could_not_run("download", f"{failure.reason}: {failure.message}")]
    except (Exception, MemoryError) as error:
        lines = str(error).strip().splitlines() or [""]
        checks = [could_not_run("audit", f"{type(error).__name__} {lines[0][:300]}")]
    return Row(model=version.name, version=version.number, aliases=aliases, verdict=verdict_of(checks), checks=checks)


def provenance(folder: Path) -> CheckResult:
    """Check `provenance`: it is known with which dropout layers and seed the model was trained, and on which data."""
    try:
        statement = binding.read(folder)
    except RefusedError:
        return failed("provenance", "dropout layers, seed and data of its training are not known", binding.AROUND)
    rates = ", ".join(f"{row.layer} {row.rate:g}" for row in statement.plan[:4]) or "none"
    more = f" and {len(statement.plan) - 4} more" if len(statement.plan) > 4 else ""
    return passed("provenance", f"seed {statement.seed}, dropout {rates}{more}, run {statement.run_id}, image {statement.image[:80]}")


def measured(folder: Path, left_out: Sequence[str]) -> list[CheckResult]:
    """The checks of the reloaded program; those that passed are told as one, `eval`, because a table of versions has one place for them."""
    if any(name.endswith(".pt2") for name in left_out):
        return [could_not_run("eval", f"{left_out[0][:160]} is too large to be downloaded; raise --limit")]
    checks = measure(folder)
    bad = [check for check in checks if check.outcome in (Outcome.FAILED, Outcome.COULD_NOT_RUN)]
    return bad or [passed("eval", f"behaves in eval mode now: {', '.join(check.name for check in checks)}")]


def measure(folder: Path) -> list[CheckResult]:
    """What the gate says now of the program in a version's folder: ours, or one that MLflow's own flavour has put under data/."""
    programs = [path for path in (folder / "artifacts" / PROGRAM, *sorted((folder / "data").glob("**/*.pt2"))) if path.is_file()]
    if not programs:
        pickled = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.suffix.lower() in PICKLES)
        why = f"loading {pickled[0][:160]!r} would run its code" if pickled else "there is no exported program among its files"
        return [could_not_run("eval", why, "export the model with torch.export, in eval mode; the trainer does")]
    from dropout_trainer.gate.local import judge_program

    found = [check for path in programs for check in judge_program(path).checks]
    return [check for check in found if check.outcome is not Outcome.NOT_APPLICABLE]


def quarantine(client: Any, version: Version, reason: str) -> bool:
    """Tags the version and takes away every alias that points at it. Returns whether there was anything to do; deletes no version.

    The tag comes first and stays as it is: cut off in between, the next audit takes the aliases and the first reason is kept.
    """
    def step() -> bool:
        done = Tag.QUARANTINED not in client.get_model_version(version.name, version.number).tags
        if done:
            client.set_model_version_tag(version.name, version.number, Tag.QUARANTINED.value, reason[:MAX_TAG])
        for alias, number in client.get_registered_model(version.name).aliases.items():
            if str(number) == version.number:
                client.delete_registered_model_alias(version.name, alias)
                done = True
        return done

    return bool(target.asked(version.uri, step))


def _quarantined(client: Any, version: Version, row: Row) -> Row:
    try:
        return row.model_copy(update={"quarantined": quarantine(client, version, row.reason)})
    except StageFailure as failure:
        remedy = "act as a user who may manage the registered model: taking an alias needs that right"
        note = could_not_run("quarantine", f"{failure.reason}: {failure.message}", remedy)
        return row.model_copy(update={"checks": [*row.checks, note]})


def _models(client: Any, names: Sequence[str]) -> list[str]:
    if names:
        return [str(target.asked(name, lambda name=name: client.get_registered_model(name)).name) for name in names]
    return [str(model.name) for model in _pages(client.search_registered_models)]


def _versions(client: Any, model: str) -> list[Version]:
    """Oldest first."""
    quoted = model.replace("'", "''")
    found = _pages(lambda **page: client.search_model_versions(f"name = '{quoted}'", **page))
    return sorted(map(Version.of, found), key=lambda version: int(version.number))


def _aliases(client: Any, model: str) -> dict[str, str]:
    aliases = target.asked(model, lambda: client.get_registered_model(model)).aliases
    return {alias: str(number) for alias, number in aliases.items()}


def _pages(search: Callable[..., Any]) -> Iterator[Any]:
    token = None
    while True:
        page = target.asked("the registry", lambda token=token: search(max_results=PAGE, page_token=token))
        yield from page
        token = page.token
        if not token:
            return


@contextmanager
def _progress(total: int) -> Iterator[Callable[[str], None]]:
    """A bar on standard error when that is a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("audit", total=total)
        yield lambda uri: progress.update(task, advance=1, description=terminal.plain(uri).plain.replace("[", r"\["))
