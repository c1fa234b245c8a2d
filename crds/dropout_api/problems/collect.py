"""All errors of a pydantic model at once.

Pydantic runs a model's own validators only when all of its fields are right, so one wrong field hides every rule across fields. Here what
was found is taken away and the rest is validated again, until nothing new is found. What only that taking away has made wrong is not told.
"""

import copy
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import JsonValue, ValidationError
from pydantic_core import ErrorDetails

from dropout_api.model import Wire
from dropout_api.problems.problem import Problem
from dropout_api.problems.shape import Path, at, pruned, repeated, shape_of
from dropout_api.problems.words import nearest, unknown_field, words

MAX_ROUNDS = 200
NAMED = re.compile(r"(?P<path>[a-z]\w*(?:\[\d+\]|\.[a-z]\w*)*)(?:: | (?=is required|does not go with))")
"""How a validator of a whole object begins when it is about one field of it."""


class _Gone:
    """Where an item of a list was taken away: the others keep their numbers."""

    def __deepcopy__(self, _memo: object) -> "_Gone":
        return self


GONE = _Gone()


@dataclass(frozen=True)
class Collected:
    """`rest` is what validates once everything wrong is taken away or stood in for; None where nothing is left."""

    problems: tuple[Problem, ...]
    rest: Any
    doubtful: frozenset[str]
    """Fields that had a problem: what `rest` has there is not what the manifest says."""
    kept: Mapping[Path, tuple[int, ...]] = field(default_factory=dict)
    """Of each list that lost items in `rest`, the numbers that the others have in the manifest."""


def collect(model: type[Wire], value: JsonValue, prefix: str, stand_ins: Mapping[str, JsonValue] | None = None) -> Collected:
    """Every problem of `value` as a `model`, its fields named from `prefix` on. `stand_ins` are values for fields of `model` itself that
    others need."""
    state = _State(model, prefix, stand_ins or {}, pruned(value, shape_of(model)))
    state.take_repeated()
    for _ in range(MAX_ROUNDS):
        try:
            model.model_validate_json(json.dumps(_present(state.rest)), strict=True, by_alias=True, by_name=False)
        except ValidationError as error:
            before = copy.deepcopy(state.rest)
            state.take(error.errors(include_url=False))
            if state.rest is GONE or state.rest == before:
                break
        else:
            return state.result(_present(state.rest))
    return state.result(None)


@dataclass
class _State:
    model: type[Wire]
    prefix: str
    stand_ins: Mapping[str, JsonValue]
    rest: Any
    found: dict[Problem, None] = field(default_factory=dict)
    touched: set[Path] = field(default_factory=set)

    def result(self, rest: Any) -> Collected:
        lists = {path[:-1]: at(self.rest, path[:-1]) for path in self.touched}
        kept = {path: tuple(number for number, item in enumerate(items) if item is not GONE)
                for path, items in lists.items() if isinstance(items, list)}
        return Collected(tuple(self.found), rest, frozenset(map(self._name, self.touched)), kept)

    def take_repeated(self) -> None:
        for path, value in list(repeated(self.rest, shape_of(self.model))):
            self._tell(path, f"{value!r:.60} stands twice in the list; name it once")
            self._remove(path)

    def take(self, errors: Sequence[ErrorDetails]) -> None:
        """Tells each error and mends `rest`. Misspelt fields go first: often one is what another error misses."""
        for path, group in sorted(_grouped(self.rest, errors).items(), key=lambda item: item[1][0]["type"] != "extra_forbidden"):
            error = group[0]
            match error["type"]:
                case "extra_forbidden":
                    self._take_unknown(path)
                case "missing":
                    self._take_missing(path)
                case "value_error" if isinstance(at(self.rest, path), dict):
                    self._take_rule(path, error["msg"].removeprefix("Value error, "))
                case _ if any(item["type"] == "too_short" for item in group) and GONE in (at(self.rest, path) or []):
                    self._remove(path)
                case _:
                    self._tell(path, words(group, shape_of(self.model, path)))
                    self._remove(path)

    def _take_unknown(self, path: Path) -> None:
        above, name = path[:-1], str(path[-1])
        holder, known = at(self.rest, above), list(shape_of(self.model, above).get("properties", {}))
        self._tell(path, unknown_field(name, known))
        value, meant = holder.pop(name), nearest(name, known)
        if meant and meant not in holder:
            holder[meant] = pruned(value, shape_of(self.model, (*above, meant)))  # its own problems are told under the right name

    def _take_missing(self, path: Path) -> None:
        above, name = path[:-1], path[-1]
        if name in (at(self.rest, above) or {}):
            return  # it was misspelt
        if path not in self.touched:
            self._tell(path, "is required; add it")
            self.touched.add(path)
        self._remove(above)

    def _take_rule(self, path: Path, message: str) -> None:
        """A validator of a whole object speaks. The field that it names is taken away or stood in for, else the object."""
        named, known = NAMED.match(message), shape_of(self.model, path).get("properties", {})
        parts = _parts(named["path"]) if named else ()
        if named is None or parts[0] not in known:
            self._tell(path, message)
            self._remove(path)
            return
        whole = (*path, *_located(at(self.rest, path), parts, absent=True))
        self._tell(whole, message[named.end():])
        holder = at(self.rest, whole[:-1])
        if isinstance(holder, dict) and whole[-1] in holder:
            self.touched.add(whole)
            del holder[whole[-1]]
        else:
            self._remove(whole if len(whole) == 1 and whole[0] in self.stand_ins else path)

    def _tell(self, path: Path, message: str) -> None:
        self.found.setdefault(Problem(self._name(path), message))

    def _name(self, path: Path) -> str:
        return self.prefix + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)

    def _remove(self, path: Path) -> None:
        """Takes the value away; what others need gets its stand-in."""
        self.touched.add(path)
        if not path:
            self.rest = GONE
            return
        holder, last = at(self.rest, path[:-1]), path[-1]
        if len(path) == 1 and last in self.stand_ins:
            holder[last] = copy.deepcopy(self.stand_ins[str(last)])
        elif isinstance(holder, list) and isinstance(last, int):
            holder[last] = GONE
        elif isinstance(holder, dict):
            holder.pop(last, None)


def _grouped(rest: Any, errors: Sequence[ErrorDetails]) -> dict[Path, list[ErrorDetails]]:
    """Errors by their place in `rest`. Several at one place are the branches of a union; one that got further goes before the others."""
    located = [(_located(rest, error["loc"], absent=error["type"] == "missing"), error) for error in errors]
    branches = [path for path, error in located if len(path) < len(error["loc"])]
    result: dict[Path, list[ErrorDetails]] = {}
    for path, error in located:
        further = any(len(other) > len(path) and other[: len(path)] == path for other in branches)
        if not (further and len(path) < len(error["loc"])):
            result.setdefault(path, []).append(error)
    return result


def _present(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _present(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_present(item) for item in value if item is not GONE]
    return value


def _located(value: Any, location: Path, absent: bool) -> Path:
    """Where an error of `_present(value)` is in `value`: list items that are gone count, names of a union's branches do not. With `absent`
    the last name need not be there."""
    path: list[str | int] = []
    for number, part in enumerate(location, 1):
        if isinstance(value, list) and isinstance(part, int):
            kept = [index for index, item in enumerate(value) if item is not GONE]
            path.append(kept[part])
            value = value[kept[part]]
        elif isinstance(value, dict) and (part in value or (absent and number == len(location))):
            path.append(part)
            value = value.get(str(part))
    return tuple(path)


def _parts(text: str) -> Path:
    return tuple(int(part) if part.isdigit() else part for part in re.findall(r"\w+", text))
