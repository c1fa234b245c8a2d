"""What a plain YAML scalar means to kubectl: the rules of go-yaml v2 (github.com/go-yaml/yaml, resolve.go), and what JSON makes of it."""

import math
import re
from decimal import Decimal
from typing import Any

WORDS: dict[str, bool | None] = {
    spelt: value
    for value, words in ((True, ("y", "yes", "true", "on")), (False, ("n", "no", "false", "off")), (None, ("null",)))
    for word in words for spelt in (word, word.capitalize(), word.upper())
} | {"": None, "~": None}
INFINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
NUMBER_STARTS = tuple("+-0123456789")
FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
GO_FRACTION = re.compile(r"\.[0-9]+(_[0-9]+)*([eE][-+]?[0-9]+(_[0-9]+)*)?")
INTEGER = re.compile(r"([-+]?)(?:0[xX]([0-9a-fA-F]+)|0[bB]([01]+)|0[oO]?([0-7]+)|(0|[1-9][0-9]*))")
SIGN_WITHIN = re.compile(r"0b([-+][01]+)")  # as Go reads what follows the prefix
BASES = (16, 2, 8, 10)
INT64 = range(-(2**63), 2**63)
UINT64 = range(2**64)
EXACT_TEXT = 1e21
"""Go's JSON writes whole floats below this as whole numbers."""


def resolve(text: str) -> bool | int | float | str | None:
    """The value of a plain scalar. Raises ValueError for infinity and NaN, which JSON has not."""
    if text in WORDS:
        return WORDS[text]
    if INFINITE.fullmatch(text):
        raise ValueError(f"{text} cannot be written as JSON")
    if text.startswith("."):
        return _float(text) if GO_FRACTION.fullmatch(text) else text
    if not text.startswith(NUMBER_STARTS):
        return text
    plain = text.replace("_", "")
    if (whole := _integer(plain)) is not None:
        return number(whole)
    value = _float(plain) if FLOAT.fullmatch(plain) else text
    return text if isinstance(value, str) else value


def _integer(text: str) -> int | None:
    if within := SIGN_WITHIN.fullmatch(text):
        return int(within[1], 2)
    found = INTEGER.fullmatch(text)
    if found is None:
        return None
    sign, *digits = found.groups()
    value, base = next((value, base) for value, base in zip(digits, BASES, strict=True) if value is not None)
    whole = int(f"{sign}{value}", base)
    return whole if whole in INT64 or whole in UINT64 else None


def _float(text: str) -> int | float | str:
    value = float(text)
    return number(value) if math.isfinite(value) else text  # out of range: not a number to go-yaml, so text


def number(value: int | float) -> int | float:
    """As JSON's reader in kubectl has it: whole where it is written so and fits 64 bits, else a float."""
    if isinstance(value, int):
        return value if value in INT64 else float(value)
    if value.is_integer() and abs(value) < EXACT_TEXT:
        whole = int(Decimal(repr(value)))  # the shortest digits that name this float, then zeros
        return whole if whole in INT64 else value
    return value


def as_kubectl_decodes(value: Any) -> Any:
    """JSON with its numbers as kubectl has them."""
    if isinstance(value, dict):
        return {key: as_kubectl_decodes(item) for key, item in value.items()}
    if isinstance(value, list):
        return [as_kubectl_decodes(item) for item in value]
    return number(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
