"""Reads nodes of an exported graph: every nested one, and where an op stands in the user's model."""

import re
from collections.abc import Iterator

from torch.export import ExportedProgram
from torch.fx import GraphModule, Node

from dropout_api.verdict import Location
from dropout_trainer.gate.ops import op_name

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


def excerpt(node: Node, before: int = 4, after: int = 2) -> str:
    """The lines of the graph around a node, which is marked."""
    nodes = list(node.graph.nodes)
    place = nodes.index(node)
    around = nodes[max(0, place - before) : place + after + 1]
    return "\n".join(f"{'>' if other is node else ' '} {_line(other)}" for other in around)


def _line(node: Node) -> str:
    if node.op in ("placeholder", "output", "get_attr"):
        return _plain(f"{node.op} {node.name}")
    arguments = ", ".join([str(argument) for argument in node.args] + [f"{name}={value}" for name, value in node.kwargs.items()])
    return _plain(f"{node.name} = {op_name(node.target)}({arguments})")


def location(node: Node, holder: Location | None = None) -> Location:
    """Where the node stands, from what the export recorded. These texts come from the training pod: they are shown, not trusted."""
    stack = [entry for entry in node.meta.get("nn_module_stack", {}).values() if UNKNOWN not in entry]
    if not stack and holder is not None:
        return Location(layer=holder.layer, op=op_name(node.target), source=holder.source)
    path, kind = stack[-1] if stack else ("", "model")
    owner = str(stack[-1][1] if stack else kind).rsplit(".", 1)[-1]
    return Location(layer=_plain(str(path) or owner), op=op_name(node.target), source=_source(node.meta.get("stack_trace"), owner))


def _source(trace: object, owner: str) -> str:
    frames = FRAME.findall(str(trace or ""))
    own = [frame for frame in frames if "/torch/" not in frame[0] and not frame[0].startswith(("torch/", "<"))] or frames
    if not own:
        return _plain(owner)
    file, line, function = own[-1]
    return _plain(f"{file.rsplit('/', 1)[-1]} line {line}, in {function}")


def _plain(text: str) -> str:
    return "".join(letter for letter in text if letter.isprintable())[:160]
