"""Reads manifests as kubectl does: a file that kubectl takes means the same here, and one that it refuses is refused.

kubectl reads YAML 1.1 by go-yaml's rules and turns it into JSON: `1e-3` is a number, `off` is a boolean, a date is text. A document that
starts with a brace is tried as JSON first.
"""

import io
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dropout_api.names import ExitCode
from dropout_trainer.errors import StageFailure
from dropout_trainer.manifest.scalars import as_kubectl_decodes
from dropout_trainer.manifest.yaml11 import Repeated, UnreadableError, parse

SEPARATOR = "---"
STDIN = "-"


@dataclass(frozen=True)
class Document:
    """One object of a manifest, as JSON, and where it starts."""

    body: dict[str, Any]
    line: int
    repeated: tuple[Repeated, ...] = ()
    """Keys that stand twice in one mapping. As with kubectl the last one counts."""


def read_manifests(path: str) -> list[Document]:
    """The objects in a file, `-` for standard input, those of a List one by one.

    Raises StageFailure: DATA_MISSING where there is no such file, SPEC_INVALID where it is no manifest.
    """
    try:
        text = (sys.stdin.buffer.read() if path == STDIN else Path(path).read_bytes()).decode("utf-8-sig")
    except OSError as error:
        raise StageFailure("DataMissing", f"{path}: {error.strerror}", ExitCode.DATA_MISSING) from None
    except UnicodeDecodeError as error:
        raise _unreadable(path, f"is no UTF-8 text: byte {error.start} is {error.object[error.start]:#04x}") from None
    try:
        return parse_manifests(text)
    except UnreadableError as error:
        raise _unreadable(path, str(error)) from None


def parse_manifests(text: str) -> list[Document]:
    """The objects in a manifest's text. Raises UnreadableError."""
    documents = list(_json_documents(text)) if text.lstrip().startswith("{") else []
    found = documents or [document for line, chunk in _chunks(text) for document in _document(chunk, line)]
    return [item for document in found for item in _items(document)]


def _chunks(text: str) -> Iterator[tuple[int, str]]:
    """The text between separators, each with the number of its first line."""
    first, lines = 1, list[str]()
    for number, line in enumerate(io.StringIO(text, newline="\n"), 1):
        if not line.startswith(SEPARATOR):
            lines.append(line)
            continue
        if rest := line.removeprefix(SEPARATOR).split("#")[0].strip():
            raise UnreadableError(f"line {number}: '{rest[:40]}' must stand on a line below {SEPARATOR}")
        yield first, "".join(lines)
        first, lines = number + 1, []
    yield first, "".join(lines)


def _document(text: str, line: int) -> Iterator[Document]:
    body, repeated = parse(text, line)
    if isinstance(body, dict):
        yield Document(body, line, repeated)
    elif body is not None:
        raise UnreadableError(f"line {line}: a manifest is a mapping with apiVersion, kind, metadata and spec, not {body!r:.60}")


def _json_documents(text: str) -> Iterator[Document]:
    """Objects one after another; none where the text is no JSON, because then kubectl takes it for YAML."""
    found, position, repeated = list[Document](), 0, list[Repeated]()

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in items]
        line = text.count("\n", 0, position) + 1
        repeated.extend(Repeated(key, line) for key in dict.fromkeys(keys) if keys.count(key) > 1)
        return dict(items)

    decoder = json.JSONDecoder(object_pairs_hook=pairs, parse_constant=_no_constant)
    try:
        while position := _next(text, position):
            repeated.clear()
            body, end = decoder.raw_decode(text, position - 1)
            if not isinstance(body, dict):
                return
            found.append(Document(as_kubectl_decodes(body), text.count("\n", 0, position) + 1, tuple(repeated)))
            position = end
    except (ValueError, RecursionError):
        return
    yield from found


def _next(text: str, position: int) -> int:
    """One more than the place of the next sign that is no space; 0 where there is none."""
    rest = text[position:]
    return position + len(rest) - len(rest.lstrip()) + 1 if rest.strip() else 0


def _no_constant(text: str) -> float:
    raise ValueError(text)


def _items(document: Document) -> Iterator[Document]:
    body = document.body
    if body.get("kind") != "List" or not isinstance(body.get("items"), list):
        yield document
        return
    for item in body["items"]:
        if not isinstance(item, dict):
            raise UnreadableError(f"line {document.line}: an item of a List is a mapping, not {item!r:.60}")
        yield Document(item, document.line, document.repeated)


def _unreadable(path: str, what: str) -> StageFailure:
    return StageFailure("ManifestUnreadable", f"{path}: {what}", ExitCode.SPEC_INVALID)
