"""What is recorded of a training so that it can be repeated: parameters of the run, and the candidate's configuration. Pure."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from dropout_api.candidate import CandidateConfig, PlanRow, Task
from dropout_api.spec import JobSpec, TrainingJobSpec
from dropout_api.verdict import CheckResult
from dropout_trainer.data import DTYPES, Data

WEIGHTS_RUN = "model.weights.from_run"
"""Parameter that names the run whose weights a training started from, whichever way its spec found it."""


@dataclass(frozen=True)
class Facts:
    """What a training was made of."""

    spec: TrainingJobSpec
    seeds: Mapping[str, int]
    plan: Sequence[PlanRow]
    data: Data
    data_sha256: str
    task: Task
    versions: Mapping[str, str]
    environment: Mapping[str, object]
    """Image, commits, device, threads, switches of torch: by name of their parameter."""


def run_params(facts: Facts, model: nn.Module) -> dict[str, object]:
    """Parameters for MLflow by name: the spec, every seed, the whole dropout plan, the data's digest, versions and environment."""
    spec = facts.spec
    return {
        "model.factory": spec.model.factory, "model.args": json.dumps(spec.model.args, sort_keys=True),
        "model.parameters": sum(parameter.numel() for parameter in model.parameters()),
        **(_flat("model.weights", spec.model.weights.model_dump(mode="json")) if spec.model.weights else {}),
        "data.factory": spec.data.factory, "data.args": json.dumps(spec.data.args, sort_keys=True), "data.sha256": facts.data_sha256,
        "data.augmentation": json.dumps([step.to_wire() for step in spec.data.augmentation]),
        **{f"data.rows.{name}": len(split) for name, split in facts.data.splits.items()},
        "task": facts.task.kind.value, "loss": facts.task.loss,
        **job_params(spec, facts.seeds, facts.versions, facts.environment), **plan_params(facts.plan),
    }


def job_params(
    spec: JobSpec, seeds: Mapping[str, int], versions: Mapping[str, str], environment: Mapping[str, object],
) -> dict[str, object]:
    """Of a training whose model and data are not yet known."""
    return {
        **_flat("training", spec.training.model_dump(mode="json")),
        "seed": spec.seed, **{f"seed.{stream}": seed for stream, seed in seeds.items()},
        "determinism": spec.determinism.value, **environment, **{f"version.{name}": version for name, version in versions.items()},
        "dropout.implementation": spec.dropout.implementation.value,
    }


def candidate_config(facts: Facts, attested: Sequence[CheckResult]) -> CandidateConfig:
    """`attested` is what the gate's checks of the live model have found."""
    data = facts.data
    return CandidateConfig(
        seed=facts.spec.seed, seeds=dict(facts.seeds), plan=list(facts.plan), task=facts.task, input_shape=list(data.input_shape),
        input_dtype="int64" if DTYPES[data.train.inputs.dtype] == "int64" else "float32", vocabulary=list(data.vocabulary),
        versions=dict(facts.versions), data_sha256=facts.data_sha256, model_factory=facts.spec.model.factory, attested=list(attested),
    )


def plan_table(plan: Sequence[PlanRow]) -> tuple[list[str], list[list[object]]]:
    """Columns and rows of the plan as a table whose cells are text and numbers."""
    columns = list(PlanRow.model_fields)
    return columns, [[_cell(getattr(row, column)) for column in columns] for row in plan]


def _cell(value: object) -> object:
    if isinstance(value, list):
        return "; ".join(value)
    dump = getattr(value, "to_json", None)
    return dump() if dump else value


def plan_params(plan: Sequence[PlanRow]) -> dict[str, object]:
    """What a row says, but for its warnings, which decide no number."""
    return {
        f"dropout.{row.place}.{name}": value
        for row in plan for name, value in _flat("", row.model_dump(mode="json", exclude={"layer", "warnings"})).items()
    }


def _flat(prefix: str, values: Mapping[str, object]) -> dict[str, object]:
    """Nested objects as dotted names; what is not set is left out, and lists are JSON."""
    result: dict[str, object] = {}
    for name, value in values.items():
        path = f"{prefix}.{name}" if prefix else name
        if isinstance(value, Mapping):
            result |= _flat(path, value)
        elif isinstance(value, list):
            result[path] = json.dumps(value)
        elif value is not None:
            result[path] = value
    return result
