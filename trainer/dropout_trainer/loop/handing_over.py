"""From a trained module to what the gate judges: the module as the exporter takes it, the test set, the task that it implies."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from dropout_api.candidate import CandidateConfig, Task
from dropout_api.metrics import TaskKind
from dropout_api.names import ExitCode
from dropout_api.spec import CommandJobSpec
from dropout_api.training import Loss
from dropout_trainer import data as data_
from dropout_trainer.data import DTYPES, Data, Split
from dropout_trainer.dropout.plan import AppliedPlan
from dropout_trainer.errors import StageFailure
from dropout_trainer.metrics.measure import measure, names_for
from dropout_trainer.train.candidate import attested, write_candidate
from dropout_trainer.train.environment import versions
from dropout_trainer.train.evaluating import answers_of, device_of
from dropout_trainer.train.export import eval_copy
from dropout_trainer.train.modes import drawing
from dropout_trainer.train.objective import make_task

ROWS = 4
"""Rows on which it is seen what the model answers."""
WRAPPERS = {"DistributedDataParallel": "module", "OptimizedModule": "_orig_mod"}
"""Of torch: around the model that was written, and where they have it."""
NOT_ITS_MODEL = "job.export got another model than job.apply, with other dropout: {}; hand over the one that has the plan, or a copy"


class Logits(nn.Module):
    """A model whose answer is an object with `logits`, as Hugging Face's are, as one that answers the tensor. Its input is what the model's
    forward takes first."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor) -> Tensor:
        answer: Tensor = self.model(inputs).logits
        return answer


@dataclass(frozen=True)
class Trained:
    """A model that can be judged: it answers the inputs of `data` with a tensor of the task's outputs."""

    model: nn.Module
    data: Data
    task: Task

    @staticmethod
    def of(model: nn.Module, plan: AppliedPlan, data: Data | Split | tuple[Tensor, Tensor], loss: Loss) -> "Trained":
        """Raises StageFailure when model, plan and data do not go together."""
        whole = held_out(data)
        check_plan(plan, model)
        model, outputs = answering(model, whole.test)
        return Trained(model, whole, task_for(whole, outputs, loss))

    def tested(self, spec: CommandJobSpec) -> dict[str, float]:
        """Its metrics on the test set, by MLflow name."""
        answers, _ = answers_of(self.model, self.data.test)
        found = measure(self.task, names_for(self.task, spec.training), answers, self.data.test.targets)
        return {f"test_{name}": value for name, value in found.items()}

    def write(self, folder: Path, spec: CommandJobSpec, seeds: Mapping[str, int], plan: AppliedPlan) -> list[Path]:
        """The candidate's files, in the order in which to upload them. Raises StageFailure when the model cannot be exported."""
        copy, test = eval_copy(self.model), self.data.test
        config = CandidateConfig(
            seed=spec.seed, seeds=dict(seeds), plan=list(plan.rows), task=self.task, input_shape=list(self.data.input_shape),
            input_dtype="int64" if DTYPES[test.inputs.dtype] == "int64" else "float32", vocabulary=list(self.data.vocabulary),
            versions=versions(), data_sha256=data_.digest(self.data), model_factory=shlex.join(spec.command),
            attested=attested(copy, test.inputs),
        )
        return write_candidate(folder, copy, test, config, spec.export)


def held_out(given: Data | Split | tuple[Tensor, Tensor]) -> Data:
    """The data to judge the model by, on the CPU. A test set alone stands for all three splits.

    Raises StageFailure when it is not what `Split` and `Data` describe.
    """
    try:
        whole = given if isinstance(given, Data) else _alone(given if isinstance(given, Split) else Split(*given))
    except TypeError:
        wanted = "job.export takes the test set as (inputs, targets), a Split or a Data"
        raise StageFailure("DataInvalid", wanted, ExitCode.DATA_INVALID) from None
    if problems := data_.problems(whole):
        told = problems if isinstance(given, Data) else [text for text in problems if text.startswith("test.")] or problems
        raise StageFailure("DataInvalid", f"job.export: {'; '.join(told)}", ExitCode.DATA_INVALID)
    train, val, test = (Split(**{name: tensor.cpu() for name, tensor in split.tensors().items()}) for split in whole.splits.values())
    return replace(whole, train=train, val=val, test=test)


def _alone(test: Split) -> Data:
    named = () if test.segments is None else tuple(map(str, range(1 + int(test.segments.max()))))
    return Data(test, test, test, segment_names=named)


def unwrapped(model: nn.Module) -> nn.Module:
    """Without what torch has put around it."""
    while (attribute := WRAPPERS.get(type(model).__name__)) is not None:
        model = getattr(model, attribute)
    return model


@torch.no_grad()
def answering(model: nn.Module, test: Split) -> tuple[nn.Module, int]:
    """The model as one that answers a tensor [N, outputs], and outputs. It is left in eval mode, the random streams as they were.

    Raises StageFailure when it answers anything else.
    """
    model.eval()
    inputs = test.inputs[:ROWS].to(device_of(model))
    with drawing(restore=True):
        answer: object = model(inputs)
    if isinstance(getattr(answer, "logits", None), Tensor):
        model, answer = Logits(model), answer.logits  # type: ignore[attr-defined]
    if isinstance(answer, Tensor) and answer.ndim == 2 and len(answer) == len(inputs):
        return model, answer.shape[1]
    found = f"{list(answer.shape)}" if isinstance(answer, Tensor) else f"a {type(answer).__name__}"
    message = f"job.export: the model answers {found} to {len(inputs)} inputs; it must answer logits or values [{len(inputs)}, outputs]"
    raise StageFailure("UserCode", message, ExitCode.USER_CODE)


def task_for(data: Data, outputs: int, loss: Loss) -> Task:
    """What a model with so many outputs answers. A test set alone may lack classes, so of a classification the model's answer counts.

    Raises StageFailure when answers and targets do not go together.
    """
    task = make_task(data, loss)
    fits = task.outputs <= outputs if data.kind is TaskKind.CLASSIFICATION and not data.class_names else task.outputs == outputs
    if not fits:
        message = f"job.export: the model answers {outputs} columns, but the targets need {task.outputs}"
        raise StageFailure("UserCode", message, ExitCode.USER_CODE)
    return task.model_copy(update={"outputs": outputs})


def check_plan(plan: AppliedPlan, model: nn.Module) -> None:
    """Reads the plan back from `model`, which is the one that it was applied to, holds it, or is a copy. Raises StageFailure."""
    if any(module is plan.model for module in model.modules()):
        plan.at(1.0)  # however early the loop ended: an MC program has the plan's last rates
        plan.check()
        return
    try:
        AppliedPlan(plan.rows, model, plan.t).check()
    except StageFailure as failure:
        raise StageFailure("UserCode", NOT_ITS_MODEL.format(failure.message), ExitCode.USER_CODE) from None
