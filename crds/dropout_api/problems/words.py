"""What is said of a wrong value: what the field takes, and what was given."""

import difflib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic_core import ErrorDetails

from dropout_api.schema import Schema

QUOTES = "write it in quotes"
TAKES = {
    "greater_than": "must be above {gt:g}", "greater_than_equal": "must be at least {ge:g}",
    "less_than": "must be below {lt:g}", "less_than_equal": "must be at most {le:g}",
    "int_type": "must be a whole number", "int_from_float": "must be a whole number", "int_parsing_size": "must be a smaller whole number",
    "float_type": "must be a number", "bool_type": "must be true or false", "string_type": "must be text", "list_type": "must be a list",
    "dict_type": "must be a mapping of names to values", "model_type": "must be a mapping of names to values",
    "string_too_long": "must have at most {max_length} characters", "string_too_short": "must have at least {min_length} character(s)",
    "too_long": "must have at most {max_length} items", "too_short": "must have at least {min_length} item(s)",
}
PATTERNS = {
    "^[0-9a-f]{32}$": "must be the id of an MLflow run, 32 digits of 0-9 and a-f; take it from status.run.id of the job that made it",
    "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$": "must be lower-case letters, digits and hyphens, with a letter or digit at both ends",
    "^[a-z][a-z0-9-]*$": "must be lower-case letters, digits and hyphens, with a letter first",
    "^[A-Za-z0-9][A-Za-z0-9_.-]*$": "must be letters, digits, '_', '.' and '-', with a letter or digit first",
    "^[A-Za-z_][A-Za-z0-9_]*$": "must be letters, digits and '_', with no digit first",
    "^/[^:]*$": "must be an absolute path without a colon",
}
FACTORY = "must be a built-in's name, or package.module:callable"
CHOICES = ("enum", "literal_error")
SCALARS = (str, int, float, bool)


def words(errors: Sequence[ErrorDetails], shape: Schema) -> str:
    """One line for one place; several errors are the branches of a union."""
    error = errors[0]
    takes = " or ".join(dict.fromkeys(_takes(item, shape) for item in errors)).replace(" or must be ", " or ")
    return f"{takes}{_given(error['input'])}{_remedy(errors, shape)}"


def _takes(error: ErrorDetails, shape: Schema) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if kind in CHOICES or (kind == "value_error" and "enum" in shape):
        return f"must be one of {', '.join(_allowed(error, shape))}"
    if kind == "string_pattern_mismatch":
        pattern = str(context["pattern"])
        return PATTERNS.get(pattern) or (FACTORY if ":" in pattern else f"must match {pattern}")
    if kind in TAKES:
        return TAKES[kind].format(**context)
    return error["msg"].removeprefix("Value error, ")


def _allowed(error: ErrorDetails, shape: Schema) -> list[str]:
    return [str(value) for value in shape.get("enum", [])] or [str(error.get("ctx", {}).get("expected"))]


def _given(value: Any) -> str:
    return f" (given: {json.dumps(value, ensure_ascii=False):.60})" if isinstance(value, SCALARS) else ""


def _remedy(errors: Sequence[ErrorDetails], shape: Schema) -> str:
    value, kinds = errors[0]["input"], {error["type"] for error in errors}
    if isinstance(value, bool) and kinds & {*CHOICES, "string_type"}:
        return f"; YAML reads a bare y, n, yes, no, on or off as a boolean: {QUOTES}"
    if isinstance(value, int | float) and "string_type" in kinds:
        return f"; {QUOTES}"
    if isinstance(value, str) and kinds & {"int_type", "float_type", "bool_type"} and _is_number(value, kinds):
        return "; write it without quotes"
    if isinstance(value, str) and kinds & {*CHOICES, "value_error"} and (near := nearest(value, shape.get("enum", []))):
        return f"; did you mean {near}?"
    return ""


def _is_number(text: str, kinds: set[str]) -> bool:
    if "bool_type" in kinds:
        return text.lower() in ("true", "false")
    try:
        float(text)
    except ValueError:
        return False
    return True


def unknown_field(name: str, known: Sequence[str]) -> str:
    """The nearest known field, or all of them where none is near."""
    near = nearest(name, known)
    return f"there is no such field; did you mean {near}?" if near else f"there is no such field; known: {', '.join(known)}"


def unknown_factory(name: str, table: Mapping[str, object]) -> str:
    near = nearest(name, table)
    meant = f" (did you mean {near}?)" if near else ""
    return f"there is no built-in '{name}'{meant}; use one of {', '.join(sorted(table))} or 'package.module:callable'"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that was probably meant: case, `_` and `-` do not count, and a few letters may differ."""
    plain = {re.sub(r"[_-]", "", item).lower(): item for item in known}
    found = difflib.get_close_matches(re.sub(r"[_-]", "", name).lower(), plain, n=1, cutoff=0.65)
    return plain[found[0]] if found else None
