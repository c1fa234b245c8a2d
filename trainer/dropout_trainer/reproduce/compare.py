"""Whether two trainings are one: recorded facts beside repeated ones. Pure."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from dropout_api.candidate import PROGRAM, WEIGHTS

Curve = Sequence[Mapping[str, float]]
"""The metrics of each epoch by name, the first epoch first."""


class Kind(StrEnum):
    """What a difference is about, in the order in which one leads to the next."""

    VERSION = "version"
    SEED = "seed"
    DATA = "data"
    MACHINE = "machine"
    SETTING = "setting"
    CURVE = "curve"
    WEIGHTS = "weights"
    PROGRAM = "program"


class Outcome(StrEnum):
    EQUAL = "equal"
    DIFFERS = "differs"
    UNDECIDED = "undecided"


GIVEN = (Kind.SEED, Kind.DATA)
"""A training that is given something else is another one, whatever comes of it."""
EXCUSES = (Kind.VERSION, Kind.MACHINE)
"""With one of these another curve is to be expected and proves nothing."""
RESULTS = (Kind.CURVE, Kind.WEIGHTS, Kind.PROGRAM)
PREFIXES = (
    ("version.", Kind.VERSION), ("seed", Kind.SEED), ("data.", Kind.DATA), ("training.", Kind.SETTING), ("model.", Kind.SETTING),
    ("dropout.", Kind.SETTING), ("determinism", Kind.SETTING),
)
"""Kinds of parameters by how their names begin. Every other one is a fact of the machine: threads, device, image, backend."""
FILES = ((WEIGHTS, Kind.WEIGHTS), (PROGRAM, Kind.PROGRAM))
"""Files that the same training writes byte by byte."""


@dataclass(frozen=True)
class Facts:
    """One training as it can be compared."""

    params: Mapping[str, str]
    curve: Curve
    files: Mapping[str, str]
    """SHA-256 of a candidate's files by name; empty when none is there to be compared."""


@dataclass(frozen=True)
class Difference:
    kind: Kind
    what: str
    recorded: str
    here: str

    def __str__(self) -> str:
        return f"{self.what}: recorded {self.recorded}, here {self.here}"


@dataclass(frozen=True)
class Comparison:
    """`differences` in the order of their kinds, so that the first is the one to look at first."""

    outcome: Outcome
    differences: tuple[Difference, ...]
    epochs: int
    """How many were compared."""
    files: tuple[str, ...]


def compare(recorded: Facts, here: Facts, epochs: int | None = None) -> Comparison:
    """Holds a repeated training against the recorded one, its first `epochs` alone where that is given."""
    curve = _of_same_names(recorded.curve, here.curve)[:epochs]
    files = () if epochs is not None else tuple(name for name, _ in FILES if name in recorded.files and name in here.files)
    found = [*_params(recorded.params, here.params), *_curves(curve, here.curve[:epochs])]
    found += [
        Difference(kind, name, recorded.files[name], here.files[name])
        for name, kind in FILES if name in files and recorded.files[name] != here.files[name]
    ]
    order = list(Kind)
    ordered = tuple(sorted(found, key=lambda item: order.index(item.kind)))
    return Comparison(_outcome({item.kind for item in found}, bool(curve)), ordered, min(len(curve), len(here.curve)), files)


def _outcome(kinds: set[Kind], has_curve: bool) -> Outcome:
    if kinds & set(GIVEN):
        return Outcome.DIFFERS
    if not has_curve:
        return Outcome.UNDECIDED
    if not kinds & set(RESULTS):
        return Outcome.EQUAL
    return Outcome.UNDECIDED if kinds & set(EXCUSES) else Outcome.DIFFERS


def _params(recorded: Mapping[str, str], here: Mapping[str, str]) -> Iterator[Difference]:
    """A newer trainer records more, which is no difference; a fact that is recorded and not known here is one of its surroundings."""
    for name, value in recorded.items():
        kind = next((kind for prefix, kind in PREFIXES if name.startswith(prefix)), Kind.MACHINE)
        if name in here and here[name] != value:
            yield Difference(kind, name, value, here[name])
        elif name not in here and kind in EXCUSES:
            yield Difference(kind, name, value, "unknown")


def _curves(recorded: Curve, here: Curve) -> Iterator[Difference]:
    """The first epoch that differs, each of its metrics; then a difference in length. Floats are compared to the last bit."""
    for epoch, (before, now) in enumerate(zip(recorded, here, strict=False), 1):
        other = [name for name in now if not _same(before.get(name), now[name])]
        if other:
            texts = {name: repr(before[name]) if name in before else "nothing" for name in other}
            yield from (Difference(Kind.CURVE, f"{name} of epoch {epoch}", texts[name], repr(now[name])) for name in other)
            break
    if len(recorded) != len(here):
        yield Difference(Kind.CURVE, "number of epochs", str(len(recorded)), str(len(here)))


def _of_same_names(recorded: Curve, here: Curve) -> Curve:
    """As far as the metrics of `here` go: a run may hold curves of other trainings beside it, as those of a cross-validation."""
    names = {name for epoch in here for name in epoch}
    last = max((number for number, epoch in enumerate(recorded, 1) if names & epoch.keys()), default=0)
    return recorded[:last]


def _same(before: float | None, now: float) -> bool:
    return before is not None and (before == now or (math.isnan(before) and math.isnan(now)))
