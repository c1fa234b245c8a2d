"""What an ONNX file would cost to parse, read from its raw protobuf before any parser gets it.

Two bytes of protobuf may become a hundred in memory, and one nested message more may be one call more on the parser's
stack. So the fields are counted and their depth is measured first, with the tables of the onnx package; a field that is
in none of them is refused, because another runtime could know it and act on it.
"""

from functools import cache
from typing import Any, NamedTuple

import onnx

from dropout_trainer.gate.verdict import RefusedError

REMEDY = "export the model with torch.onnx.export and keep the file as it is"
MAX_FIELDS = 2_000_000
"""Fields in one file: a node has some fifty, with what the exporter records of its origin."""
MAX_DEPTH = 40
"""Messages inside each other; a node's subgraph takes three levels. Parsers give up at 100."""
MAX_PACKED_BYTES = 64 << 20
"""Packed integers in one file, which grow eightfold in memory. Weights are raw data or packed floats."""
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


class Field(NamedTuple):
    """What the walk needs to know of a field."""

    message: Any
    """Descriptor of the message that it holds, or None."""
    integers: bool
    """Whether it is a list of integers, which may stand packed in one byte each."""
    text: bool
    """Whether it is text. Python's parser takes any bytes for one and fails when it is read."""


def check(content: bytes) -> None:
    """Raises RefusedError when `content` is no ONNX protobuf, or one that grows or nests beyond the limits when parsed."""
    _Walk(content).message(0, len(content), onnx.ModelProto.DESCRIPTOR, 0)


class _Walk:
    def __init__(self, content: bytes) -> None:
        self.content = content
        self.fields = 0
        self.packed = 0

    def message(self, at: int, end: int, kind: Any, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise RefusedError(f"messages are nested more than {MAX_DEPTH} deep", "export a model without such deeply nested subgraphs")
        known = _fields(kind)
        while at < end:
            self.fields += 1
            if self.fields > MAX_FIELDS:
                raise RefusedError(f"the file has more than {MAX_FIELDS} nodes, names and other parts", "export a smaller model")
            tag, at = self._number(at, end)
            field = known.get(tag >> 3)
            if field is None:
                raise RefusedError(f"{kind.name} has no field {tag >> 3} in onnx {onnx.__version__}: this is no ONNX model", REMEDY)
            at = self._value(tag & 7, at, end, field, depth)

    def _value(self, wire: int, at: int, end: int, field: Field, depth: int) -> int:
        """Goes through one value and returns where the next field begins."""
        if wire == VARINT:
            return self._number(at, end)[1]
        if wire in (FIXED32, FIXED64):
            return _within(at + (4 if wire == FIXED32 else 8), end)
        if wire != BYTES:
            raise RefusedError(f"the file holds a value of protobuf's kind {wire}, which ONNX has not: this is no ONNX model", REMEDY)
        size, at = self._number(at, end)
        end = _within(at + size, end)
        if field.message:
            self.message(at, end, field.message, depth + 1)
        elif field.integers:
            self.packed += size
            if self.packed > MAX_PACKED_BYTES:
                raise RefusedError(f"the file has more than {MAX_PACKED_BYTES} bytes of packed integers", "keep weights as raw data")
        elif field.text:
            self._text(at, end)
        return end

    def _text(self, at: int, end: int) -> None:
        try:
            self.content[at:end].decode()
        except UnicodeDecodeError:
            raise RefusedError(f"the text at byte {at} of the file is not in UTF-8: this is no ONNX model", REMEDY) from None

    def _number(self, at: int, end: int) -> tuple[int, int]:
        """A varint and where it ends."""
        value = shift = 0
        while shift < 64 and at < end:
            byte = self.content[at]
            at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value, at
            shift += 7
        raise RefusedError(f"a number before byte {at} is cut off or has more than 64 bits: this is no ONNX model", REMEDY)


def _within(at: int, end: int) -> int:
    if at > end:
        raise RefusedError(f"the file speaks of bytes beyond byte {end}, where they end: it is cut off, or no ONNX model", REMEDY)
    return at


@cache
def _fields(kind: Any) -> dict[int, Field]:
    integers = (kind.fields[0].TYPE_INT32, kind.fields[0].TYPE_INT64, kind.fields[0].TYPE_UINT64)
    return {
        field.number: Field(field.message_type, field.is_repeated and field.type in integers, field.type == field.TYPE_STRING)
        for field in kind.fields
    }
