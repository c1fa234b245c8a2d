"""Reads nodes of an exported graph: every nested one, arguments by the name they have in the op's schema, and where an op
stands in the user's model."""

import re
from collections.abc import Iterator
from typing import Any

from torch.export import ExportedProgram
from torch.fx import GraphModule, Node

from dropout_trainer.gate.verdict import Location

FRAME = re.compile(r'File "([^"\n]{1,400})", line (\d{1,7}), in ([\w<>]{1,100})')
UNKNOWN = "_empty_nn_module_stack_from_metadata_hook"


def calls(program: ExportedProgram) -> Iterator[tuple[Node, Location]]:
    """Every call in the program, those in branches and loop bodies included, with its place in the model.

    A branch's ops carry no place of their own, so they get that of the call that holds the branch.
    """
    yield from _calls(program.graph_module, None)


def _calls(module: GraphModule, holder: Location | None) -> Iterator[tuple[Node, Location]]:
    for node in module.graph.nodes:
        if node.op in ("placeholder", "output", "get_attr"):
            continue
        where = location(node, holder)
        yield node, where
        for argument in node.all_input_nodes:
            branch = getattr(module, str(argument.target), None) if argument.op == "get_attr" else None
            if isinstance(branch, GraphModule):
                yield from _calls(branch, where)


def arguments(node: Node) -> dict[str, Any]:
    """The call's arguments by schema name, defaults included; empty for a call that has no schema."""
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return {}
    values = {argument.name: argument.default_value for argument in schema.arguments if argument.has_default_value()}
    values |= dict(zip((argument.name for argument in schema.arguments), node.args, strict=False))
    return values | node.kwargs


def op_name(node: Node) -> str:
    """As `aten.dropout`, without the overload."""
    return ".".join(str(node.target).split(".")[:2])


def location(node: Node, holder: Location | None = None) -> Location:
    """Where the node stands, from what the export recorded. These texts come from the training pod: they are shown, not trusted."""
    stack = [entry for entry in node.meta.get("nn_module_stack", {}).values() if UNKNOWN not in entry]
    if not stack and holder is not None:
        return Location(layer=holder.layer, op=op_name(node), source=holder.source)
    path, kind = stack[-1] if stack else ("", "model")
    owner = str(stack[-1][1] if stack else kind).rsplit(".", 1)[-1]
    return Location(layer=_plain(str(path) or owner), op=op_name(node), source=_source(node.meta.get("stack_trace"), owner))


def _source(trace: object, owner: str) -> str:
    frames = FRAME.findall(str(trace or ""))
    own = [frame for frame in frames if "/torch/" not in frame[0] and not frame[0].startswith(("torch/", "<"))] or frames
    if not own:
        return _plain(owner)
    file, line, function = own[-1]
    return _plain(f"{file.rsplit('/', 1)[-1]} line {line}, in {function}")


def _plain(text: str) -> str:
    return "".join(letter for letter in text if letter.isprintable())[:160]
