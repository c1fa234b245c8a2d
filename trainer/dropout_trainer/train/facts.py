"""What is recorded of a training so that it can be repeated: parameters of the run, and the candidate's configuration. Pure."""

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from dropout_api._version import __version__
from dropout_api.candidate import CandidateConfig, PlanRow, Task
from dropout_api.spec import TrainingJobSpec
from dropout_api.verdict import CheckResult
from dropout_trainer.data import DTYPES, Data


@dataclass(frozen=True)
class Facts:
    """What a training was made of."""

    spec: TrainingJobSpec
    seeds: Mapping[str, int]
    plan: Sequence[PlanRow]
    data: Data
    data_sha256: str
    task: Task
    device: str
    threads: int


def versions() -> dict[str, str]:
    return {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__, "dropout-operator": __version__}


def run_params(facts: Facts, model: nn.Module) -> dict[str, object]:
    """Parameters for MLflow by name: the spec, every seed, the whole dropout plan, the data's digest and the versions."""
    spec = facts.spec
    return {
        "model.factory": spec.model.factory, "model.args": json.dumps(spec.model.args, sort_keys=True),
        "model.parameters": sum(parameter.numel() for parameter in model.parameters()),
        "data.factory": spec.data.factory, "data.args": json.dumps(spec.data.args, sort_keys=True), "data.sha256": facts.data_sha256,
        **{f"data.rows.{name}": len(split) for name, split in facts.data.splits.items()},
        **_flat("training", spec.training.model_dump(mode="json")),
        "seed": spec.seed, **{f"seed.{stream}": seed for stream, seed in facts.seeds.items()},
        "determinism": spec.determinism.value, "device": facts.device, "threads": facts.threads,
        **{f"version.{name}": version for name, version in versions().items()},
        **_plan_params(facts.plan),
    }


def candidate_config(facts: Facts, attested: Sequence[CheckResult]) -> CandidateConfig:
    """`attested` is what the gate's checks of the live model have found."""
    data = facts.data
    return CandidateConfig.model_validate({
        "seed": facts.spec.seed, "seeds": dict(facts.seeds), "plan": list(facts.plan), "task": facts.task,
        "input_shape": list(data.input_shape), "input_dtype": DTYPES[data.train.inputs.dtype],
        "versions": versions(), "data_sha256": facts.data_sha256, "model_factory": facts.spec.model.factory, "attested": list(attested),
    })


def _plan_params(plan: Sequence[PlanRow]) -> dict[str, object]:
    return {
        f"dropout.{row.layer}.{name}": value
        for row in plan for name, value in (("rate", row.rate), ("kind", row.kind), ("type", row.type), ("why", row.why))
    }


def _flat(prefix: str, values: Mapping[str, object]) -> dict[str, object]:
    """Nested objects as dotted names; what is not set is left out."""
    result: dict[str, object] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            result |= _flat(f"{prefix}.{name}", value)
        elif value is not None:
            result[f"{prefix}.{name}"] = value
    return result
