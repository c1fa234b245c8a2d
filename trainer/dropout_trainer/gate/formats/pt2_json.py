"""Looks for code in models/model.json, the text form of an exported program, before torch reads it.

Three kinds of its strings are Python to torch 2.13: shape expressions go through sympy.sympify (an eval), guards are
pasted into a function that is compiled, and names of values and attributes become the generated forward's source. Call
targets are looked up by attribute from the torch module, so `torch.hub.load` is one. Each kind has its grammar here;
a program that torch.export wrote fits it.
"""

import ast
import json
import re
from collections.abc import Callable
from typing import Any

from torch._export.serde.schema import SCHEMA_VERSION

from dropout_trainer.gate.verdict import RefusedError

REMEDY = "export with torch.export.export and save the program unchanged"
IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,511}")
DOTTED = re.compile(r"[A-Za-z0-9_.]{0,1024}")
SYMPY = frozenset((
    "Symbol", "Integer", "Float", "Rational", "Add", "Mul", "Pow", "Max", "Min", "Mod", "Eq", "Ne", "Lt", "Le", "Gt", "Ge", "And", "Or",
    "Not", "StrictGreaterThan", "StrictLessThan", "GreaterThan", "LessThan", "Equality", "Unequality", "FloorDiv", "ModularIndexing",
    "Where", "PythonMod", "CleanDiv", "CeilToInt", "FloorToInt", "CeilDiv", "LShift", "RShift", "PowByNatural", "FloatPow", "FloatTrueDiv",
    "IntTrueDiv", "IsNonOverlappingAndDenseIndicator", "TruncToFloat", "TruncToInt", "RoundToInt", "RoundDecimal", "ToFloat", "Identity",
    "true", "false", "BooleanTrue", "BooleanFalse", "oo", "int_oo",
))
MEMBERS = frozenset(("size", "stride", "storage_offset", "shape", "ndim"))
LOOPS = "cond|while_loop|map_impl|scan|associative_scan|wrap_with_set_grad_enabled|wrap_with_autocast|invoke_subgraph"
OPERATOR = r"(_?[A-Za-z0-9]\w*|__(i?and|i?or|i?xor|i?lshift|i?rshift)__)(\.[A-Za-z]\w*)?"
PYTHON = "add|sub|mul|truediv|floordiv|mod|pow|neg|pos|abs|eq|ne|lt|le|gt|ge|and_|or_|xor|not_|lshift|rshift|getitem"
TARGET = re.compile(
    rf"torch\.ops\.(aten|prims)\.{OPERATOR}|torch\.ops\.higher_order\.({LOOPS})|_operator\.({PYTHON})"
    r"|math\.(ceil|floor|trunc|sqrt|pow|log|exp)|torch\.sym_(int|float|max|min|not|sum|ite|sqrt|fresh_size)|torch\._sym_sqrt"
)
# these reach the file system
FILES = re.compile(r"torch\.ops\.\w+\.(from_file|_?save|_?load)(\.|$)")
NAMES = ("name", "as_name")
ATTRIBUTES = ("parameter_name", "buffer_name", "tensor_constant_name", "user_input_name", "fqn")
OBJECTS = ("as_custom_obj", "class_fqn", "custom_obj_name", "as_operator")
# torch counts up to the number of each of them
SYMBOL = re.compile(r"[a-z]+\d{1,5}")
POWERS = frozenset(("Pow", "PowByNatural", "FloatPow", "LShift"))
MAX_POWERS, MAX_EXPONENT, MAX_PRECISION = 4, 8, 128
"""sympy computes a power of numbers when it reads it, and a number in as many digits as it is told."""
MAX_CONTAINERS = 1 << 20
MAX_NUMBER = 2**64
BUILT_IN_TREES = (None, "builtins.tuple", "builtins.list", "builtins.dict")


def parse(content: bytes, name: str) -> Any:
    """The JSON in record `name`, read as strictly as two parsers agree on: one value for a key, no number that is none."""
    try:
        text = content.decode()
        if text.count("{") + text.count("[") > MAX_CONTAINERS:
            raise RefusedError(f"record {name} has more than {MAX_CONTAINERS} objects and lists", "export a smaller program")
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise RefusedError(f"record {name} is not JSON ({str(error)[:120]})", REMEDY) from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a key is there twice")
    return table


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is no number")


def check_program(program: Any) -> None:
    """Raises RefusedError, quoting the string, when a part of the parsed model.json could run as code."""
    if not isinstance(program, dict) or not isinstance(program.get("graph_module"), dict):
        raise RefusedError("models/model.json is not an exported program", REMEDY)
    version = program.get("schema_version")
    if not isinstance(version, dict) or version.get("major") != SCHEMA_VERSION[0]:
        raise RefusedError(f"models/model.json has the schema version {str(version)[:80]}; this torch reads {SCHEMA_VERSION[0]}",
                           "export with the torch version of the verifier's image")
    ranges = program.get("range_constraints")
    if not isinstance(ranges, dict) or not all(SYMBOL.fullmatch(name) for name in ranges):
        raise RefusedError("models/model.json: range_constraints has a name that is no symbol", REMEDY)
    for guard in _strings(program.get("guards_code", []), "guards_code"):
        _expression(guard, "guards_code")
    try:
        _walk(program, "")
    except RecursionError:
        raise RefusedError("models/model.json is nested too deeply", REMEDY) from None


def _walk(value: Any, key: str) -> None:
    if isinstance(value, dict):
        for inner, item in value.items():
            if inner in OBJECTS and item:
                raise RefusedError(f"models/model.json: {inner} is no tensor or number", "use tensors, numbers and torch's own ops alone")
            if inner != "metadata" or not _is_texts(item):
                _walk(item, inner)
    elif isinstance(value, list):
        for item in value:
            _walk(item, key)
    elif isinstance(value, str):
        RULES.get(key, _anything)(value, key)
    elif isinstance(value, int) and abs(value) >= MAX_NUMBER:
        raise RefusedError(f"models/model.json: {key[:40]} holds a number of {value.bit_length()} bits", REMEDY)


def _is_texts(value: Any) -> bool:
    """Whether this is a node's metadata: texts about the source, shown and never run. An argument of that name is not."""
    return isinstance(value, dict) and all(isinstance(item, str) and not key.startswith("as_") for key, item in value.items())


def _anything(text: str, key: str) -> None:
    if len(text) > 4096:
        raise RefusedError(f"models/model.json: {key[:40]} holds a text of {len(text)} characters", REMEDY)


def _matching(pattern: re.Pattern[str]) -> Callable[[str, str], None]:
    def rule(text: str, key: str) -> None:
        if text and not pattern.fullmatch(text):
            raise _code(key, text)
    return rule


def _target(text: str, key: str) -> None:
    if FILES.match(text) or not TARGET.fullmatch(text):
        raise RefusedError(f"models/model.json calls {text[:120]!r}, which is no operator of torch", "use torch's own ops alone")


def _expression(text: str, key: str) -> None:
    if len(text) > 4096 or re.search(r"[\n\r#\\;]", text):
        raise _code(key, text)
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise _code(key, text) from None
    nodes = list(ast.walk(tree))
    # elsewhere a text could be repeated for ever
    names = {id(part) for node in nodes for part in _places_of_texts(node)}
    texts = {id(node) for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    if texts - names or not all(_harmless(node) for node in nodes) or sum(map(_is_power, nodes)) > MAX_POWERS:
        raise _code(key, text)


def _places_of_texts(node: ast.AST) -> list[ast.expr]:
    match node:
        case ast.Call(func=ast.Name(), args=arguments):
            return arguments
        case ast.Subscript(value=ast.Name(id="L") | ast.Subscript(), slice=place):
            return [place]
    return []


def _is_power(node: ast.AST) -> bool:
    match node:
        case ast.BinOp(op=ast.Pow()):
            return True
        case ast.Call(func=ast.Name(id=name)):
            return name in POWERS
    return False


def _harmless(node: ast.AST) -> bool:
    match node:
        case ast.Name(id=name):
            return name in SYMPY or name in ("L", "args", "math") or bool(SYMBOL.fullmatch(name))
        case ast.Attribute(value=value, attr=name):
            return name in MEMBERS or (isinstance(value, ast.Name) and value.id == "math" and name in ("inf", "nan", "isnan"))
        case ast.Call(func=ast.Name(id=name), args=arguments):
            small = len(arguments) == 2 and _is_small(arguments[1]) if name in POWERS else name != "Float" or len(arguments) == 1
            return name in SYMPY and small
        case ast.Call(func=ast.Attribute()):
            return True
        case ast.Constant(value=str(text)):
            return bool(IDENTIFIER.fullmatch(text) or re.fullmatch(r"-?[0-9.]{1,24}(e[+-]?\d{1,3})?", text))
        case ast.Constant(value=value):
            return value is None or (isinstance(value, bool | int | float) and abs(value) < MAX_NUMBER)
        case ast.keyword(value=value):
            return isinstance(value, ast.Constant) and isinstance(value.value, int) and abs(value.value) <= MAX_PRECISION
        case ast.BinOp(op=ast.Pow(), right=right):
            return _is_small(right)
        case ast.BinOp(op=operator):
            return not isinstance(operator, ast.LShift)
        case ast.Expression() | ast.Subscript() | ast.Compare() | ast.BoolOp() | ast.UnaryOp():
            return True
        case _:
            return isinstance(node, ast.expr_context | ast.operator | ast.cmpop | ast.boolop | ast.unaryop)


def _is_small(node: ast.expr) -> bool:
    """Whether this exponent is a small number, in sympy's words or Python's."""
    match node:
        case ast.Call(func=ast.Name(id="Integer" | "Rational" | "Float"), args=arguments):
            return all(_is_small(argument) for argument in arguments)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return _is_small(operand)
        case ast.Constant(value=value):
            return isinstance(value, int | float) and abs(value) <= MAX_EXPONENT
    return False


def _tree(text: str, key: str) -> None:
    """A pytree of built-in containers: its context is JSON that may otherwise name a module to import."""
    try:
        _tree_node(json.loads(text)[1], key)
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        raise _code(key, text) from None


def _tree_node(node: Any, key: str) -> None:
    context = json.loads(node["context"]) if node["context"] is not None else None
    keys = context if isinstance(context, list) else []
    if node["type"] not in BUILT_IN_TREES or context not in (None, keys):
        raise ValueError
    if not all(isinstance(item, str) and IDENTIFIER.fullmatch(item) for item in keys):
        raise ValueError
    for child in node["children_spec"]:
        _tree_node(child, key)


def _strings(value: Any, key: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise RefusedError(f"models/model.json: {key} is not a list of texts", REMEDY)
    return value


def _code(key: str, text: str) -> RefusedError:
    return RefusedError(f"models/model.json: {key[:40]} holds {text[:120]!r}, which could run as code", REMEDY)


RULES: dict[str, Callable[[str, str], None]] = {
    "target": _target, "expr_str": _expression, "guards_code": _expression, "in_spec": _tree, "out_spec": _tree,
    "forward_arg_names": _matching(IDENTIFIER),
    **dict.fromkeys(NAMES, _matching(IDENTIFIER)), **dict.fromkeys(ATTRIBUTES, _matching(DOTTED)),
}
