"""`dropout plan FILE`: the dropout plan of each training job in a manifest, with data and model built as the trainer builds them."""

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from dropout_api.candidate import PlanRow, Task
from dropout_api.metrics import TaskKind
from dropout_api.names import ExitCode
from dropout_api.problems import as_job_spec
from dropout_api.spec import TrainingJobSpec
from dropout_trainer.dropout.table import render
from dropout_trainer.errors import StageFailure
from dropout_trainer.train.preparing import prepare, training_on
from dropout_trainer.validate.command import show
from dropout_trainer.validate.files import Judged, judge_file
from dropout_trainer.verify.terminal import complain, console, plain


@dataclass(frozen=True)
class Preview:
    """What a training would start with."""

    name: str
    factory: str
    task: Task
    parameters: int
    training_rows: int
    plan: Sequence[PlanRow]

    def __str__(self) -> str:
        what = f"{self.task.outputs} classes" if self.task.kind is TaskKind.CLASSIFICATION else f"{self.task.values} value(s)"
        return f"{self.name}: {self.factory}, {self.parameters:,} parameters, {what}, {self.training_rows:,} training rows"


def run(path: str, as_json: bool) -> int:
    """Prints the plans. Returns an `ExitCode`: OK, that of `dropout validate` for a wrong manifest, that of the trainer where it would
    end before its first epoch."""
    judged = judge_file(path)
    if judged.exit_code:
        show([judged], as_json)
        return judged.exit_code
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # a model of one's own may lie beside its manifest
    try:
        found = [preview(job.name, _training(job)) for job in judged.jobs]
    except StageFailure as failure:
        complain(failure)
        return failure.exit_code
    if as_json:
        print(json.dumps({"jobs": [_wire(item) for item in found]}, indent=1))
        return ExitCode.OK
    for item in found:
        console().print(plain(str(item)))
        console().print(render(item.plan) if item.plan else plain("  it has no layer with dropout, and its plan adds none"))
    return ExitCode.OK


def preview(name: str, spec: TrainingJobSpec) -> Preview:
    """Builds what the trainer would, from the same seeds. Raises StageFailure as the trainer does."""
    ground = prepare(spec)
    training = training_on(ground, ground.data, spec.seed)
    parameters = sum(parameter.numel() for parameter in training.model.parameters())
    return Preview(name, spec.model.factory, ground.task, parameters, len(ground.data.train), training.plan.rows)


def _training(job: Judged) -> TrainingJobSpec:
    spec = as_job_spec(job.body["spec"])
    if spec.source is not None:
        raise StageFailure("SpecInvalid", f"{job.name}: a job with spec.from trains nothing, so it has no plan", ExitCode.SPEC_INVALID)
    if spec.command is not None:
        message = f"{job.name}: the model of a job with spec.command is built by its program alone; the run of a training holds its plan"
        raise StageFailure("SpecInvalid", message, ExitCode.SPEC_INVALID)
    return TrainingJobSpec.model_validate(spec.to_wire())


def _wire(item: Preview) -> dict[str, object]:
    return {
        "name": item.name, "parameters": item.parameters, "trainingRows": item.training_rows, "task": item.task.to_wire(),
        "plan": [row.to_wire() for row in item.plan],
    }
