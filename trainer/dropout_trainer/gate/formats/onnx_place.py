"""Where a node of an ONNX model stands in the network that it was exported from.

Torch's exporters record it: the newer one as metadata of the node, the older one in the node's name. These texts come
from whoever made the file: they are shown, not trusted.
"""

import ast
import re
from collections.abc import Sequence

from onnx import NodeProto

from dropout_api.verdict import Location

SCOPES, CLASSES, TRACE = "pkg.torch.onnx.name_scopes", "pkg.torch.onnx.class_hierarchy", "pkg.torch.onnx.stack_trace"
FRAME = re.compile(r'File "([^"\n]{1,400})", line (\d{1,7}), in ([\w<>]{1,100})')


def location(node: NodeProto, holder: Location | None = None) -> Location:
    """The node's place. Inside a branch or a function, a node that has no record of it has that of the node which holds it."""
    noted = {entry.key: entry.value for entry in node.metadata_props}
    op = plain(f"onnx.{node.op_type}")
    layer = _recorded(noted) or _from_name(node.name)
    named = plain(node.name or next(iter(node.output), ""))
    if layer is None and holder is not None:
        return Location(layer=holder.layer, op=op, source=plain(f"node {named} in {holder.source}"))
    return Location(layer=plain(layer or named or "the model"), op=op, source=_line(noted.get(TRACE, "")) or f"node {named}")


def excerpt(nodes: Sequence[NodeProto], place: int, before: int = 4, after: int = 2) -> str:
    """The nodes around number `place` of a graph, that one marked."""
    around = range(max(0, place - before), min(len(nodes), place + after + 1))
    return "\n".join(f"{'>' if number == place else ' '} {_call(nodes[number])}" for number in around)


def plain(text: str) -> str:
    """At most 160 characters that a terminal only prints."""
    return "".join(letter for letter in text if letter.isprintable())[:160]


def _call(node: NodeProto) -> str:
    return plain(f"{', '.join(node.output)} = {node.op_type}({', '.join(node.input)})")


def _recorded(noted: dict[str, str]) -> str | None:
    """The innermost module's dotted name, or the class of the model for an op in its own forward. The last entry is the op itself."""
    scopes, classes = _texts(noted.get(SCOPES)), _texts(noted.get(CLASSES))
    if len(scopes) < 2:
        return None
    return scopes[-2] or (classes[0].rsplit(".", 1)[-1] if classes else None)


def _texts(written: str | None) -> list[str]:
    try:
        value = ast.literal_eval(written[:10_000]) if written else []
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return []
    return value if isinstance(value, list) and all(isinstance(item, str) for item in value) else []


def _from_name(name: str) -> str | None:
    """`/block/block.1/drop/Dropout` as block.1.drop: a part repeats the one before it where a Sequential holds the next."""
    scopes: list[str] = []
    for part in name.split("/")[1:-1]:
        if scopes and part.startswith(f"{scopes[-1]}."):
            scopes.pop()
        scopes.append(part)
    return ".".join(scopes) if name.startswith("/") and scopes else None


def _line(trace: str) -> str:
    frames = [frame for frame in FRAME.findall(trace) if not frame[0].startswith("<")]
    own = [frame for frame in frames if "/torch/" not in frame[0]] or frames
    return plain(f"{own[-1][0].rsplit('/', 1)[-1]} line {own[-1][1]}, in {own[-1][2]}") if own else ""
