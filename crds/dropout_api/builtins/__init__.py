"""Arguments of the built-in factories, typed so that the operator can refuse a misspelt one before any pod starts."""

import json

from pydantic import JsonValue, ValidationError

from dropout_api.builtins.arguments import Arguments
from dropout_api.model import Wire
from dropout_api.spec import FactoryCall


class ArgumentError(ValueError):
    """An argument or factory that cannot be; the message names the field and the remedy."""


def arguments(call: FactoryCall, table: dict[str, type[Arguments]], field: str) -> Arguments | None:
    """The typed arguments of a built-in, None for a user's own factory.

    Raises ArgumentError for an unknown built-in or a wrong argument.
    """
    if ":" in call.factory:
        return None
    if call.factory not in table:
        known = ", ".join(sorted(table))
        raise ArgumentError(f"spec.{field}.factory: no built-in '{call.factory}'; use one of {known} or 'package.module:callable'")
    try:
        return table[call.factory].model_validate_json(json.dumps(call.args), strict=True)
    except ValidationError as error:
        raise ArgumentError(describe(error, f"spec.{field}.args", table[call.factory])) from None


def describe(error: ValidationError, prefix: str, model: type[Wire] | None = None) -> str:
    """One line per problem: the field's path, what is wrong with its value, and what would be right."""
    lines = []
    for problem in error.errors():
        path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in problem["loc"])
        known = f"; known: {', '.join(model.model_fields)}" if model and problem["type"] == "extra_forbidden" else ""
        what = "unknown field" if known else problem["msg"].removeprefix("Value error, ")
        lines.append(f"{prefix}{path}: {what}{known}{_given(problem['input'], problem['type'])}")
    return "; ".join(lines)


def _given(value: JsonValue, kind: str) -> str:
    return "" if kind in ("missing", "extra_forbidden", "value_error") else f" (given: {value!r:.60})"
