"""Every problem of a spec or of a whole manifest at once, each with its field and a remedy. Pure: JSON in, problems out.

`dropout validate` prints them and the operator refuses a job with them, so that both say the same. The API server refuses what is in the
schema and in its rules (`crd.py`) by itself; all of that is refused here, too.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from dropout_api.builtins.arguments import Arguments
from dropout_api.builtins.data import DATA
from dropout_api.builtins.models import MODELS
from dropout_api.problems.collect import Collected, collect
from dropout_api.problems.problem import Problem
from dropout_api.problems.rules import Known, broken_rules
from dropout_api.problems.shape import pruned, shape_of
from dropout_api.problems.words import unknown_factory
from dropout_api.spec import JobSpec

__all__ = ["Problem", "as_job_spec", "problems", "summary"]
SPEC = "spec"
TABLES = {"model": MODELS, "data": DATA}
MAX_SUMMARY = 1500
STAND_INS: dict[str, JsonValue] = {
    "model": {"factory": "stand.in:model"}, "data": {"factory": "stand.in:data"}, "from": {"run": "0" * 32},
    "command": ["stand-in"],
}
"""Takes the place of what is missing or wrong and cannot be left out, so that the rest can be looked at."""


def problems(spec: JsonValue) -> list[Problem]:
    """What is wrong with a spec as a manifest has it; empty when the operator takes it."""
    whole = collect(JobSpec, spec, SPEC, STAND_INS)
    if whole.rest is None:
        return list(whole.problems)
    parts = {field: _arguments(whole, field, table) for field, table in TABLES.items()}
    known = Known(
        JobSpec.model_validate(whole.rest), {field: part.typed for field, part in parts.items()},
        whole.doubtful.union(*(part.doubtful for part in parts.values())), whole.kept,
    )
    return [*whole.problems, *(problem for part in parts.values() for problem in part.problems), *broken_rules(known)]


def as_job_spec(spec: JsonValue) -> JobSpec:
    """A spec without problems, as the API server would have it."""
    return JobSpec.model_validate(pruned(spec, shape_of(JobSpec)))


def summary(found: Sequence[Problem], limit: int = MAX_SUMMARY) -> str:
    """The problems in one line of at most about `limit` characters: as many whole ones as fit, then how many more there are."""
    told: list[str] = []
    for number, problem in enumerate(map(str, found)):
        if told and sum(map(len, told)) + len(problem) > limit:
            return "; ".join(told) + f"; and {len(found) - number} more, which `dropout validate` prints"
        told.append(problem[:limit])
    return "; ".join(told)


@dataclass(frozen=True)
class _Part:
    """The call of a factory: its problems and, of a built-in, its arguments as far as they are right."""

    problems: tuple[Problem, ...] = ()
    doubtful: frozenset[str] = frozenset()
    typed: Arguments | None = None


def _arguments(whole: Collected, field: str, table: dict[str, type[Arguments]]) -> _Part:
    call, path = whole.rest.get(field), f"{SPEC}.{field}"
    if call is None or ":" in call["factory"]:
        return _Part()
    if (kind := table.get(call["factory"])) is None:
        return _Part((Problem(f"{path}.factory", unknown_factory(call["factory"], table)),), frozenset({f"{path}.factory"}))
    if f"{path}.args" in whole.doubtful:
        return _Part()
    found = collect(kind, call.get("args", {}), f"{path}.args")
    return _Part(found.problems, found.doubtful, None if found.rest is None else kind.model_validate(found.rest))
