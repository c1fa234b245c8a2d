"""A manifest around its spec: what kubectl and the API server ask of apiVersion, kind and metadata."""

import re
from typing import Any

from pydantic import JsonValue

from dropout_api.crd import MAX_NAME
from dropout_api.names import API_VERSION, GROUP, KIND
from dropout_api.problems import problems
from dropout_api.problems.problem import Problem
from dropout_api.problems.words import QUOTES, nearest, unknown_field

VERSION = f"{GROUP}/{API_VERSION}"
FIELDS = ("apiVersion", "kind", "metadata", "spec", "status")
METADATA = (
    "name", "generateName", "namespace", "labels", "annotations", "finalizers", "ownerReferences", "uid", "resourceVersion", "generation",
    "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "managedFields", "selfLink",
)
NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
NAMESPACE_LENGTH = 63
GENERATED = 5
"""Characters that the API server appends to `generateName`."""
LABEL = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")


def is_training_job(body: dict[str, Any]) -> bool:
    """Whether a manifest is meant to be a training job; others may stand in one file with it."""
    kind, version = body.get("kind"), body.get("apiVersion")
    if isinstance(version, str) and version.partition("/")[0] == GROUP:
        return True
    if isinstance(kind, str) and nearest(kind, (KIND,)):
        return True
    return not (isinstance(kind, str) and isinstance(version, str))


def manifest_problems(body: dict[str, Any]) -> list[Problem]:
    """What is wrong with a training job's manifest."""
    wanted = {"apiVersion": VERSION, "kind": KIND}
    found = [_must_be(field, right, body.get(field)) for field, right in wanted.items() if body.get(field) != right]
    found += [Problem(name, unknown_field(name, FIELDS)) for name in body if name not in FIELDS]
    metadata = body.get("metadata")
    found += _metadata(metadata) if isinstance(metadata, dict) else [Problem("metadata", "is required: a mapping with the job's name")]
    if body.get("spec") is None:
        meant = any(nearest(name, FIELDS) == "spec" for name in body if name not in FIELDS)
        return found if meant else [*found, Problem("spec", "is required; add it, with model and data")]
    return found + problems(body["spec"])


def _must_be(field: str, right: str, given: JsonValue) -> Problem:
    return Problem(field, f"must be {right}" + ("" if given is None else f" (given: {given!r:.60})"))


def _metadata(metadata: dict[str, Any]) -> list[Problem]:
    found = [Problem(f"metadata.{name}", unknown_field(name, METADATA)) for name in metadata if name not in METADATA]
    name, prefix, namespace = metadata.get("name"), metadata.get("generateName"), metadata.get("namespace")
    if name is not None:
        found += _name("metadata.name", name, MAX_NAME)
    elif prefix is not None:
        found += _name("metadata.generateName", f"{prefix}x" if isinstance(prefix, str) else prefix, MAX_NAME - GENERATED + 1)
    elif not any(nearest(key, METADATA) == "name" for key in metadata if key not in METADATA):
        found.append(Problem("metadata.name", "is required; add it"))
    if namespace is not None:
        found += _name("metadata.namespace", namespace, NAMESPACE_LENGTH)
    return found + [problem for field in ("labels", "annotations") for problem in _texts(metadata.get(field), f"metadata.{field}")]


def _name(field: str, value: JsonValue, limit: int) -> list[Problem]:
    if not isinstance(value, str):
        return [Problem(field, f"must be text (given: {value!r:.60}); {QUOTES}")]
    if len(value) > limit:
        return [Problem(field, f"must have at most {limit} characters, because it names Jobs and labels (given: {len(value)})")]
    if not NAME.fullmatch(value):
        allowed = "must be lower-case letters, digits and hyphens, with a letter or digit at both ends and no dots"
        return [Problem(field, f"{allowed} (given: {value!r:.60})")]
    return []


def _texts(values: JsonValue, field: str) -> list[Problem]:
    if values is None:
        return []
    if not isinstance(values, dict):
        return [Problem(field, "must be a mapping of names to texts")]
    found = [Problem(f"{field}.{key}", f"must be text (given: {value!r:.60}); {QUOTES}")
             for key, value in values.items() if not isinstance(value, str)]
    if field.endswith("labels"):
        wrong = (key for key, value in values.items() if isinstance(value, str) and not LABEL.fullmatch(value))
        found += [Problem(f"{field}.{key}", "must be at most 63 letters, digits, '-', '_' and '.', with a letter or digit at both ends")
                  for key in wrong]
    return found
