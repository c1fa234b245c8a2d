"""The CustomResourceDefinition, made from the typed models: `python -m dropout_api.crd > crds/dropouttrainingjobs.yaml`.

What the API server can refuse it refuses itself, without the operator: types, ranges, enums and unknown fields from the
schema, cross-field rules and immutability from CEL (https://kubernetes.io/docs/reference/using-api/cel/).
"""

import json
import sys
from collections.abc import Iterable
from typing import Any

from pydantic.alias_generators import to_camel

from dropout_api import names
from dropout_api.dropout import COMPILABLE, INSERTED, WRAPPED, Schedule
from dropout_api.metrics import BY_CLASS, CLASS_FITS
from dropout_api.model import OneOfSeveral
from dropout_api.pod import PodTemplate
from dropout_api.schema import Schema, structural
from dropout_api.spec import (
    COMPILED_AT_FEW_RATES,
    IMMUTABLE_UNLESS_SUSPENDED,
    MUTABLE,
    ONE_SOURCE,
    ONE_VERSION,
    PT2_REQUIRED,
    REQUIRED,
    REQUIRED_TO_TRAIN,
    UNUSED,
    UNUSED_WITH_COMMAND,
    UNUSED_WITH_FROM,
    JobSpec,
)
from dropout_api.status import JobStatus
from dropout_api.training import MORE_THAN_ONE, ONE_PLACE, ONE_WARM_UP, ONE_WEIGHTING, QUANTILES, Optimizer, Scheduler

MAX_NAME = 52  # leaves room for "-<attempt>" and the pod's suffix within a label's 63 characters
COLUMNS = (
    ("Phase", "string", ".status.phase", 0),
    ("Progress", "string", ".status.progress.percent", 0),
    ("Val-Gap", "number", ".status.progress.metrics.val_gap", 0),
    ("Model", "string", ".status.model.uri", 0),
    ("Restarts", "integer", ".status.restarts", 0),
    ("Age", "date", ".metadata.creationTimestamp", 0),
    ("Message", "string", ".status.message", 1),
)


def custom_resource_definition() -> dict[str, Any]:
    """The CRD as a JSON object."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{names.PLURAL}.{names.GROUP}"},
        "spec": {
            "group": names.GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": names.KIND, "listKind": f"{names.KIND}List", "plural": names.PLURAL,
                "singular": names.KIND.lower(), "shortNames": [names.SHORT_NAME], "categories": ["all"],
            },
            "versions": [{
                "name": names.API_VERSION, "served": True, "storage": True,
                "schema": {"openAPIV3Schema": _root()},
                "subresources": {"status": {}},
                "additionalPrinterColumns": [
                    {"name": name, "type": kind, "jsonPath": path} | ({"priority": priority} if priority else {})
                    for name, kind, path, priority in COLUMNS
                ],
            }],
        },
    }


def _root() -> Schema:
    status = structural(JobStatus)
    status["default"] = {"phase": "Pending"}  # so that a watcher sees a phase before the operator's first word
    return {
        "type": "object",
        "description": "A training of a torch model with a typed dropout plan. The trained model becomes a registered version in MLflow "
                       "once it has proved to be in eval mode.",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"},
            "spec": _spec(), "status": status,
        },
        "x-kubernetes-validations": [{
            "rule": f"self.metadata.name.size() <= {MAX_NAME} && !self.metadata.name.contains('.')",
            "message": f"metadata.name must be at most {MAX_NAME} characters without dots, because it names Jobs and labels",
        }],
    }


def _spec() -> Schema:
    spec = structural(JobSpec)
    spec["x-kubernetes-validations"] = [*_immutable(), *_immutable_template(), *_trained_or_from(), _beside_checkpoints()]
    properties = spec["properties"]
    properties["gate"]["items"]["x-kubernetes-validations"] = [
        _rule("has(self.min) || has(self.max)", "set min, max or both"),
        _rule("!has(self.min) || !has(self.max) || self.min <= self.max", "min is above max"),
        _rule(f"!has(self.class) || self.metric in {_list(BY_CLASS)}", f"class {CLASS_FITS}", ".metric"),
    ]
    properties["dropout"]["properties"]["layers"]["items"]["x-kubernetes-validations"] = [
        _rule(f"self.action != '{action}' || (has(self.kind) && self.kind in {_list(kinds)})",
              f"action {action} needs a kind of {', '.join(kinds)}", ".action")
        for action, kinds in (("Insert", INSERTED), ("Wrap", WRAPPED))
    ]
    properties["dropout"]["properties"]["layers"]["items"]["properties"]["schedule"]["x-kubernetes-validations"] = _nothing_unused(Schedule)
    properties["training"]["properties"]["optimizer"]["x-kubernetes-validations"] = _nothing_unused(Optimizer)
    properties["training"]["properties"]["scheduler"]["x-kubernetes-validations"] = _nothing_unused(Scheduler)
    properties["model"]["properties"]["weights"]["x-kubernetes-validations"] = [
        _rule("[has(self.uri), has(self.run), has(self.model)].filter(source, source).size() == 1", ONE_SOURCE),
        _rule("has(self.model) == (has(self.alias) != has(self.version)) && (has(self.model) || !has(self.alias))", ONE_VERSION),
    ]
    properties["checkpoint"]["x-kubernetes-validations"] = [_rule("has(self.volumeClaim) != has(self.uri)", ONE_PLACE)]
    properties["training"]["x-kubernetes-validations"] = _training()
    properties["export"]["x-kubernetes-validations"] = [
        _rule("!has(self.alias) || self.alias != 'latest'", "'latest' is reserved by MLflow; choose another name", ".alias"),
        _rule("!has(self.formats) || 'PT2' in self.formats", PT2_REQUIRED, ".formats"),  # the default {} is judged before it is filled in
    ]
    template = properties["podTemplate"]["properties"]
    reserved = " || ".join(f"self.name.startsWith('{prefix}')" for prefix in names.RESERVED_ENV_PREFIXES)
    template["env"]["items"]["x-kubernetes-validations"] = [
        _rule(f"!({reserved})", f"names that start with {' or '.join(names.RESERVED_ENV_PREFIXES)} are the platform's", ".name"),
    ]
    sources = "[has(self.persistentVolumeClaim), has(self.configMap), has(self.secret), has(self.emptyDir)]"
    template["volumes"]["items"]["x-kubernetes-validations"] = [
        _rule(f"{sources}.filter(source, source).size() == 1", "set exactly one of persistentVolumeClaim, configMap, secret, emptyDir"),
    ]
    return spec


def _nothing_unused(model: type[OneOfSeveral]) -> list[Schema]:
    rules = []
    for restriction in model.restrictions():
        field, choice = f"self.{restriction.field}", f"self.{restriction.choice}"
        unset, used = f"!has({field}) || {field} == {restriction.default}", f"has({choice}) && {choice} in {_list(restriction.kinds)}"
        rules.append(_rule(f"{unset} || ({used})", restriction.words, f".{restriction.field}"))
    return rules


def _training() -> list[Schema]:
    """Rules inside of spec.training that the models themselves check with the same words. A default is judged before it is filled in, so
    none may rely on what another default brings."""
    loss, warm = "self.loss", "self.scheduler.warmupEpochs"
    named = f"(has({loss}.name) && {loss}.name == 'Quantile')"
    return [
        _rule(f"!has(self.scheduler) || self.scheduler.name != 'OneCycle' || {warm} == 0.0", f"warmupEpochs {ONE_WARM_UP}", ".scheduler"),
        _rule(f"!has({loss}) || {named} == ({loss}.quantiles.size() > 0)", QUANTILES, ".loss"),
        _rule(f"!has({loss}) || {loss}.weights.size() == 0 || {loss}.classWeights != 'Balanced'", ONE_WEIGHTING, ".loss"),
        _rule("!has(self.crossValidation) || self.crossValidation.folds > 1 || (self.crossValidation.folds == 0 && "
              "self.crossValidation.repeats > 1)", MORE_THAN_ONE, ".crossValidation"),
    ]


def _list(names: Iterable[str]) -> str:
    return "[" + ", ".join(f"'{name}'" for name in names) + "]"


def _immutable() -> list[Schema]:
    """One rule for each field, all at the level of the spec: a rule on an optional leaf is not run when the leaf is removed."""
    return [
        _message(wire_name(name), _unchanged("", wire_name(name)), "is immutable; delete this job and create a new one")
        for name in JobSpec.model_fields if name not in MUTABLE
    ]


def wire_name(field: str) -> str:
    """Name of a field of the spec as manifests have it."""
    return JobSpec.model_fields[field].alias or field


def _trained_or_from() -> list[Schema]:
    """As `JobSpec` itself checks it: a job trains, has a program that trains, or verifies what another has trained."""
    required = [
        _message(name, f"has(self.from) || has(self.command) || has(self.{name})", REQUIRED) for name in map(wire_name, REQUIRED_TO_TRAIN)
    ]
    own = [_message(name, f"!has(self.command) || !has(self.{name})", UNUSED_WITH_COMMAND) for name in map(wire_name, REQUIRED_TO_TRAIN)]
    unused = [_message(name, f"!has(self.from) || !has(self.{name})", UNUSED) for name in map(wire_name, UNUSED_WITH_FROM)]
    plan = "!has(self.from) || !has(self.dropout.rate) && self.dropout.layers.size() == 0"
    compiled = f"!self.training.compile || self.dropout.layers.all(rule, rule.schedule.kind in {_list(COMPILABLE)})"
    plans = [_message("dropout", plan, UNUSED), _message("dropout.layers: a schedule", compiled, COMPILED_AT_FEW_RATES)]
    return [*required, *own, *unused, *plans]


def _beside_checkpoints() -> Schema:
    place, mounts = names.CHECKPOINTS_PATH, "self.podTemplate.volumeMounts"
    free = f"{mounts}.all(mount, mount.mountPath != '{place}' && !mount.mountPath.startsWith('{place}/'))"
    unused = f"!has(self.checkpoint) || !has(self.checkpoint.volumeClaim) || !has({mounts})"
    return _message("podTemplate.volumeMounts", f"{unused} || {free}", f"may not be at {place}, where spec.checkpoint.volumeClaim goes")


def _immutable_template() -> list[Schema]:
    rules = []
    for name in map(to_camel, PodTemplate.model_fields):
        same = _unchanged(".podTemplate", name)
        if name in map(to_camel, IMMUTABLE_UNLESS_SUSPENDED):
            held = f"(oldSelf.suspend && self.suspend) || ({same})"
            rules.append(_message(f"podTemplate.{name}", held, "may change only while the job is suspended"))
        else:
            rules.append(_message(f"podTemplate.{name}", same, "is immutable; delete this job and create a new one"))
    return rules


def _unchanged(parent: str, name: str) -> str:
    """A rule by which a field neither changes nor comes nor goes. (Optionals would read better, but cost too much to admit.)"""
    new, old = f"self{parent}.{name}", f"oldSelf{parent}.{name}"
    return f"has({new}) == has({old}) && (!has({new}) || {new} == {old})"


def _message(path: str, rule: str, message: str) -> Schema:
    return {"rule": rule, "message": f"spec.{path} {message}"}


def _rule(rule: str, message: str, path: str | None = None) -> Schema:
    return {"rule": rule, "message": message} | ({"fieldPath": path} if path else {})


def to_yaml(definition: dict[str, Any]) -> str:
    """The CRD as YAML text, with the header of a generated file."""
    import yaml  # the generator's own need; not the API's

    text: str = yaml.safe_dump(json.loads(json.dumps(definition)), sort_keys=False, width=160)
    return f"# Made by `make crds` from crds/dropout_api; edit that.\n{text}"


if __name__ == "__main__":
    sys.stdout.write(to_yaml(custom_resource_definition()))
