"""JSON beside the structural schema that the CRD has for it: what the API server does to an object before anybody sees it."""

from collections.abc import Iterator
from functools import cache
from typing import Any

from dropout_api.model import Wire
from dropout_api.schema import Schema, structural

Path = tuple[str | int, ...]
INT64 = 2**63
_whole = cache(structural)


def shape_of(model: type[Wire], path: Path = ()) -> Schema:
    """The schema at `path` of a model; empty where it has none."""
    schema = _whole(model)
    for part in path:
        schema = _inner(schema, part)
    return schema


def _inner(schema: Schema, part: str | int) -> Schema:
    if isinstance(part, int):
        return schema.get("items") or {}
    return schema.get("properties", {}).get(part) or schema.get("additionalProperties") or {}


def pruned(value: Any, schema: Schema) -> Any:
    """A copy as the API server has it: null fields are dropped, whole floats are whole numbers. Free-form values stay as they are."""
    if schema.get("x-kubernetes-preserve-unknown-fields"):
        return value
    if isinstance(value, dict):
        inner = {key: _inner(schema, key) for key in value}
        return {key: pruned(item, inner[key]) for key, item in value.items() if item is not None or not inner[key]}
    if isinstance(value, list):
        return [pruned(item, _inner(schema, 0)) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < INT64 else value


def repeated(value: Any, schema: Schema, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Items of lists that are sets which stand there a second time."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from repeated(item, _inner(schema, key), (*path, key))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            if schema.get("x-kubernetes-list-type") == "set" and item in value[:number]:
                yield (*path, number), item
            yield from repeated(item, _inner(schema, number), (*path, number))


def at(value: Any, path: Path) -> Any:
    """The value at `path`, None where there is none."""
    for part in path:
        if isinstance(value, dict):
            value = value.get(part)
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            value = value[part]
        else:
            return None
    return value
