"""What the chart holds twice is made here: `python charts/generate.py`. A test fails when it was forgotten.

- files/dropouttrainingjobs.yaml  a copy of the generated CRD
- values.schema.json              from values.yaml: keys, types, and the `# --` comments as descriptions
- README.md                       the table of values, between its two marks
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
CHART = ROOT / "charts" / "dropout-operator"
BEGIN, END = "<!-- values: begin -->\n", "<!-- values: end -->\n"

QUANTITY = {"type": ["string", "integer"], "pattern": r"^\d+(\.\d+)?(m|[kMGTPE]i?)?$"}
QUANTITIES = {"type": "object", "additionalProperties": QUANTITY}
RESOURCES = {"type": "object", "additionalProperties": False, "properties": {"requests": QUANTITIES, "limits": QUANTITIES}}
STRINGS = {"type": "object", "additionalProperties": {"type": "string"}}
NAME = {"type": "string", "pattern": r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$"}
URL = {"type": "string", "pattern": r"^(https?://[^\s/]+(/\S*)?)?$"}
REFERENCE = {
    "type": "object", "required": ["name"], "additionalProperties": False,
    "properties": {"name": {"type": "string", "minLength": 1}},
}
OBJECTS = {"type": "array", "items": {"type": "object"}}
RULES: dict[str, dict[str, Any]] = {
    "**.digest": {"type": "string", "pattern": "^(sha256:[0-9a-f]{64})?$"},
    "**.repository": {"type": "string", "minLength": 1},
    "**.resources": RESOURCES,
    "**.podLabels": STRINGS, "**.podAnnotations": STRINGS, "**.nodeSelector": STRINGS, "**.annotations": STRINGS,
    "**.tolerations": OBJECTS, "**.affinity": {"type": "object"},
    "images.pullPolicy": {"enum": ["Always", "IfNotPresent", "Never"]},
    "images.pullSecrets": {"type": "array", "items": REFERENCE},
    "operator.logLevel": {"enum": ["DEBUG", "INFO", "WARNING", "ERROR"]},
    "operator.resyncSeconds": {"type": "integer", "minimum": 10},
    "mlflow.trackingUri": URL, "mlflow.publicUrl": URL,
    "mlflow.existingSecrets.operator": NAME, "mlflow.existingSecrets.verifier": NAME,
    "mlflow.existingSecrets.admin": NAME, "mlflow.existingSecrets.server": NAME,
    "mlflow.allowedHosts": {"type": "array", "items": {"type": "string", "minLength": 1, "not": {"const": "*"}}},
    "mlflow.workers": {"type": "integer", "minimum": 1, "maximum": 32},
    "mlflow.persistence.size": QUANTITY,
    "mlflow.persistence.storageClassName": {"type": ["string", "null"]},
    "mlflow.persistence.accessModes": {
        "type": "array", "minItems": 1, "items": {"enum": ["ReadWriteOnce", "ReadWriteOncePod", "ReadWriteMany"]},
    },
    "mlflow.service.type": {"enum": ["ClusterIP", "NodePort", "LoadBalancer"]},
    "mlflow.service.port": {"type": "integer", "minimum": 1, "maximum": 65535},
    "mlflow.service.nodePort": {"type": ["integer", "null"], "minimum": 1, "maximum": 65535},
    "registry.guard": {"enum": ["", "Off", "Report", "Enforce"]},
    "registry.models": {"type": "array", "items": {"type": "string", "minLength": 1}},
    "registry.webhook.url": URL,
    "registry.webhook.existingSecret": NAME, "signing.existingSecret": NAME,
    "audit.schedule": {"type": "string", "pattern": r"^(@\w+|\S+( \S+){4})$"},
    "networkPolicy.mlflowFrom": OBJECTS, "networkPolicy.verifierEgress": OBJECTS,
    "monitoring.annotations": {"type": "boolean"},
    "monitoring.interval": {"type": "string", "pattern": r"^\d+(ms|s|m|h)$"},
    "monitoring.labels": STRINGS,
}


def comments(text: str) -> dict[str, str]:
    """Dotted key → its `# --` comment."""
    found: dict[str, str] = {}
    path: list[tuple[int, str]] = []
    pending: list[str] = []
    for line in text.splitlines():
        if comment := re.match(r"\s*# (?:-- )?(.*)$", line):
            pending = [comment[1]] if "# -- " in line else [*pending, comment[1]] if pending else []
        elif key := re.match(r"( *)([A-Za-z]\w*):", line):
            path = [item for item in path if item[0] < len(key[1])] + [(len(key[1]), key[2])]
            if pending:
                found[".".join(name for _, name in path)] = " ".join(pending)
            pending = []
        else:
            pending = []
    return found


def leaves(values: dict[str, Any], described: dict[str, str], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys that a comment describes, with their defaults; what is below such a key is its value."""
    for name, value in values.items():
        key = f"{prefix}{name}"
        if key in described:
            yield key, value
        elif isinstance(value, dict) and value:
            yield from leaves(value, described, f"{key}.")
        else:
            raise SystemExit(f"values.yaml: {key} has no comment")


def rule(key: str, value: Any) -> dict[str, Any]:
    """The schema of a value: its own rule, that of its last name, or the type of its default."""
    found = RULES.get(key) or RULES.get(f"**.{key.rsplit('.', 1)[-1]}")
    if found is None:
        if not isinstance(value, bool | str):
            raise SystemExit(f"charts/generate.py: {key} needs a rule")
        found = {"type": "boolean" if isinstance(value, bool) else "string"}
    return found


def schema(values: dict[str, Any], described: dict[str, str]) -> dict[str, Any]:
    root: dict[str, Any] = {
        "$schema": "http://json-schema.org/draft-07/schema#", "title": "Values of the chart dropout-operator", "type": "object",
        "additionalProperties": False, "properties": {"global": {"type": "object", "description": "Helm's own; not used."}},
    }
    for key, value in leaves(values, described):
        *parents, name = key.split(".")
        node = root
        for parent in parents:
            node = node["properties"].setdefault(parent, {"type": "object", "additionalProperties": False, "properties": {}})
        node["properties"][name] = {"description": described[key], **rule(key, value)}
    return root


def table(values: dict[str, Any], described: dict[str, str]) -> str:
    rows = [f"| `{key}` | `{json.dumps(value)}` | {described[key]} |" for key, value in leaves(values, described)]
    return "\n".join(["| value | default | meaning |", "| --- | --- | --- |", *rows]) + "\n"


def outputs() -> dict[Path, str]:
    """Every generated file's text."""
    text = (CHART / "values.yaml").read_text()
    values, described = yaml.safe_load(text), comments(text)
    readme = (CHART / "README.md").read_text()
    head, rest = readme.split(BEGIN)
    return {
        CHART / "files" / "dropouttrainingjobs.yaml": (ROOT / "crds" / "dropouttrainingjobs.yaml").read_text(),
        CHART / "values.schema.json": json.dumps(schema(values, described), indent=2, ensure_ascii=False) + "\n",
        CHART / "README.md": head + BEGIN + table(values, described) + END + rest.split(END)[1],
    }


if __name__ == "__main__":
    for path, text in outputs().items():
        path.write_text(text)
