"""Turns a pydantic model into a structural OpenAPI v3 schema, the dialect of JSON schema that a CRD takes.

https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema
"""

import copy
from typing import Any

from dropout_api.model import Wire

Schema = dict[str, Any]

KEPT = (
    "type", "format", "description", "default", "enum", "pattern", "minimum", "maximum", "minLength", "maxLength", "minItems",
    "maxItems", "minProperties", "maxProperties", "required", "x-kubernetes-list-type", "x-kubernetes-list-map-keys",
)
MAX_TEXT = 32_768  # an unbounded string makes every CEL rule above it too expensive to admit


def structural(model: type[Wire]) -> Schema:
    """The structural schema of `model`, references resolved and every object closed to unknown fields."""
    schema = model.model_json_schema(by_alias=True, mode="validation")
    return _convert(schema, schema.get("$defs", {}))


def _convert(node: Schema, definitions: Schema) -> Schema:
    node = _merged(node, definitions)
    if node.get("x-free-form"):
        return _free_form(node)
    if node.get("x-kubernetes-int-or-string"):
        return _only(node, "description", "x-kubernetes-int-or-string")
    result = {key: copy.deepcopy(node[key]) for key in KEPT if key in node}
    _bounds(node, result)
    if "const" in node:
        result["enum"] = [node["const"]]
    if "properties" in node:
        result["properties"] = {name: _convert(child, definitions) for name, child in node["properties"].items()}
        if result.get("default") is not None:
            result["default"] = {}  # the fields' own defaults fill it
    if isinstance(node.get("additionalProperties"), dict):
        result["additionalProperties"] = _convert(node["additionalProperties"], definitions)
    if "items" in node:
        result["items"] = _convert(node["items"], definitions)
    if result.get("default", ...) is None:
        del result["default"]
    return result


def _merged(node: Schema, definitions: Schema) -> Schema:
    """`node` with its reference and its `null or …` resolved; what stands beside a reference wins over what it names."""
    node = dict(node)
    variants = [variant for variant in node.pop("anyOf", []) if variant.get("type") != "null"]
    if len(variants) == 1:
        node = {**variants[0], **node}
    if "$ref" in node:
        target = definitions[node.pop("$ref").removeprefix("#/$defs/")]
        node = _merged({**target, **node}, definitions)
    return node


def _free_form(node: Schema) -> Schema:
    # Without a type the API server compares the value as a whole. With `type: object` CEL's equality skips keys that only
    # one side has, and renaming a key would slip past the immutability rule.
    return _only(node, "description") | {"x-kubernetes-preserve-unknown-fields": True}


def _only(node: Schema, *keys: str) -> Schema:
    return {key: node[key] for key in keys if key in node}


def _bounds(node: Schema, result: Schema) -> None:
    for bound in ("Minimum", "Maximum"):
        value = node.get(f"exclusive{bound}")
        if value is not None:  # JSON schema 2020 holds the bound, OpenAPI 3.0 a flag beside it
            result[bound.lower()] = value
            result[f"exclusive{bound}"] = True
    if node.get("type") == "integer":
        result["format"] = "int64"
    if node.get("type") == "string" and not {"enum", "maxLength", "format"} & node.keys():
        result["maxLength"] = MAX_TEXT
    if node.get("type") == "array":
        result.setdefault("maxItems", 1024)
    if isinstance(node.get("additionalProperties"), dict):
        result.setdefault("maxProperties", node.get("maxProperties", 256))
