"""YAML to JSON. PyYAML parses; what a scalar, a key and a merge mean follows go-yaml, which differs from PyYAML in all three."""

import base64
import binascii
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import yaml
from yaml.composer import Composer
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yaml.parser import Parser
from yaml.reader import Reader
from yaml.resolver import BaseResolver
from yaml.scanner import Scanner

from dropout_trainer.manifest.scalars import resolve

PLAIN = "plain"
STANDARD = "tag:yaml.org,2002:"
MERGE = "<<"
MAX_VALUES = 200_000
"""A manifest is megabytes at most, aliases in it included; more is one that grows by its aliases."""


class UnreadableError(ValueError):
    """Text that is no manifest; the message names the line."""


@dataclass(frozen=True)
class Repeated:
    """A key that stands twice in one mapping, and the line of the second."""

    key: str
    line: int


class _Loader(Reader, Scanner, Parser, Composer, BaseResolver):
    """PyYAML up to nodes, with every plain scalar left as it is written."""

    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)
        Composer.__init__(self)
        BaseResolver.__init__(self)

    def compose_scalar_node(self, anchor: Any) -> ScalarNode:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        node: ScalarNode = super().compose_scalar_node(anchor)
        if event.tag is None and event.implicit[0]:
            node.tag = PLAIN
        return node


def parse(text: str, first: int = 1) -> tuple[Any, tuple[Repeated, ...]]:
    """One document's JSON and its repeated keys; None where there is nothing. `first` is the number of its first line.

    Raises UnreadableError.
    """
    builder = _Builder(first)
    try:
        node = _Loader(text).get_single_node()
        return (None if node is None else builder.value(node)), tuple(builder.repeated)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {first + mark.line}, column {mark.column + 1}: " if mark else ""
        raise UnreadableError(f"{place}{error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise UnreadableError(next(iter(str(error).splitlines()), "")) from None
    except RecursionError:
        raise UnreadableError("it is nested too deeply") from None


class _Builder:
    """Nodes to JSON."""

    def __init__(self, first: int) -> None:
        self._first = first
        self._left = MAX_VALUES
        self.repeated: list[Repeated] = []

    def value(self, node: Node) -> Any:
        self._left -= 1
        if self._left < 0:
            raise UnreadableError(f"it holds more than {MAX_VALUES} values, aliases counted each time")
        if isinstance(node, MappingNode):
            return self._mapping(node)
        if isinstance(node, SequenceNode):
            return [self.value(item) for item in node.value]
        assert isinstance(node, ScalarNode)
        return self._scalar(node)

    def _mapping(self, node: MappingNode) -> dict[str, Any]:
        """In the order of the text: unlike in YAML's own words, go-yaml's merge goes before keys that stand above it."""
        result, own = dict[str, Any](), set[str]()
        for key_node, value_node in node.value:
            if key_node.value == MERGE and key_node.tag == PLAIN:
                for merged in self._merged(value_node):
                    result |= merged
                continue
            key = self._key(key_node)
            if key in own:
                self.repeated.append(Repeated(key, self._line(key_node)))
            own.add(key)
            result[key] = self.value(value_node)
        return result

    def _merged(self, node: Node) -> Iterator[dict[str, Any]]:
        """What a merge brings; of a list the first wins, so it comes last."""
        for item in reversed(node.value) if isinstance(node, SequenceNode) else [node]:
            if not isinstance(item, MappingNode):
                raise self._error(item, "a merge (<<) takes mappings")
            yield self._mapping(item)

    def _key(self, node: Node) -> str:
        value = self.value(node)
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, str | int | float):
            return str(value)
        raise self._error(node, "a key is text; give it one, in quotes where it looks like something else")

    def _scalar(self, node: ScalarNode) -> Any:
        text, tag = node.value, node.tag.removeprefix(STANDARD)
        try:
            if tag == PLAIN:
                return resolve(text)
            value = _READERS[tag](text)
        except KeyError:
            raise self._error(node, f"the tag {node.tag} is not known here; write the value without it") from None
        except ValueError as error:
            raise self._error(node, str(error)) from None
        if not isinstance(value, TYPES[tag]) or (isinstance(value, bool) and tag != "bool"):
            raise self._error(node, f"'{text[:40]}' is no {tag}")
        return value

    def _line(self, node: Node) -> int:
        return self._first + int(node.start_mark.line)

    def _error(self, node: Node, what: str) -> UnreadableError:
        return UnreadableError(f"line {self._line(node)}: {what}")


def _binary(text: str) -> str:
    try:
        return base64.b64decode("".join(text.split()), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise ValueError("!!binary holds no base64 of UTF-8 text") from None


_READERS: dict[str, Callable[[str], Any]] = {
    "str": str, "binary": _binary, "int": resolve, "float": resolve, "bool": resolve, "null": resolve,
}
TYPES: dict[str, type | tuple[type, ...]] = {
    "str": str, "binary": str, "int": int, "float": (int, float), "bool": bool, "null": type(None),
}
