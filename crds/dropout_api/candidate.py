"""The layout of a candidate: what a training pod leaves in its run for the verifier.

All files lie under `CANDIDATE_PATH` of the run's artifacts. The verifier derives that place from the id of a run that the
operator made (for `spec.from`: found to be of the job's namespace), reads these files by name, and takes nothing else from there.
"""

from collections.abc import Collection
from typing import Annotated, Literal

from pydantic import Field

from dropout_api.dropout import DropoutAction, DropoutKind, Implementation, Schedule
from dropout_api.metrics import TaskKind
from dropout_api.model import Observed, Wire
from dropout_api.report import Sha256
from dropout_api.spec import ExportSpec, Format
from dropout_api.verdict import CheckResult

CANDIDATE_PATH = "candidate"
PROGRAM = "eval.pt2"
"""The model, exported in eval mode under no_grad on the CPU with a dynamic batch dimension."""
HELDOUT = "heldout.safetensors"
"""The test set: tensors `input` [N, ...], `output` [N, outputs] (what the eager model answered in eval mode), `target` [N] of int64 or
[N, values] of float32, and where the data have segments `segment` [N] of int64."""
WEIGHTS = "weights.safetensors"
"""The state dict, for retraining."""
CONFIG = "config.json"
"""A `CandidateConfig`."""
MC = "mc.pt2"
"""Where it is asked for: the model, exported with dropout on and everything else in eval mode."""
ONNX = "model.onnx"
"""Where it is asked for: the model in eval mode as an ONNX file, its weights inside."""
MANIFEST = "manifest.json"
"""A `Manifest` of the files above."""
FILES = (PROGRAM, HELDOUT, WEIGHTS, CONFIG)
"""What every candidate has beside its manifest."""
ASKED_BY = {MC: "spec.export.mcPasses", ONNX: "spec.export.formats"}
"""What a candidate has where its job asks for it, and the field that asks."""

REPORT_PATH = "gate"
"""Folder of the run's artifacts that holds the gate's report."""
REPORT_JSON = "report.json"


def files_for(export: ExportSpec) -> tuple[str, ...]:
    """The files of a candidate under that spec, neither more nor fewer, but for the manifest."""
    return (*FILES, *([MC] if export.mc_passes else []), *([ONNX] if Format.ONNX in export.formats else []))


def formats_of(files: Collection[str]) -> str:
    """The formats among a candidate's files, as the tag of a version has them: `PT2` or `PT2,ONNX`."""
    return ",".join(Format) if ONNX in files else Format.PT2.value


class PlanRow(Wire):
    """One place of dropout in a model, what was decided for it and why."""

    layer: str
    """Dotted name in the model; of what a rule has added, the name of the layer that it was added to."""
    kind: DropoutKind
    type: str
    """Class of the module, the attribute's owner as `LSTM.dropout`, or the layer and what was added to it as `Conv2d + Dropout2d`."""
    action: DropoutAction = DropoutAction.SET
    rate: float
    """What the rule or the model says; `schedule` moves it."""
    schedule: Schedule = Schedule()
    implementation: Implementation = Implementation.NATIVE
    """Fast or Native."""
    why: str
    """`rule 2 (features.*)`, `spec.dropout.rate` or `model`."""
    warnings: list[str] = []
    """Why this place or rate is known to hurt."""

    @property
    def place(self) -> str:
        """Names the row among those of a plan: a layer may have dropout of its own and more that was added to it."""
        return self.layer if self.action is DropoutAction.SET else f"{self.layer}/{self.kind.value}"


class Task(Wire):
    """What the model answers, and how its answers are judged."""

    kind: TaskKind = TaskKind.CLASSIFICATION
    outputs: Annotated[int, Field(ge=1)]
    """Columns of the answer [N, outputs]: logits of the classes; else the values, or with quantiles each value's quantiles side by side."""
    loss: Literal["CrossEntropy", "MSE", "MAE", "Huber", "Quantile"] = "CrossEntropy"
    quantiles: list[float] = []
    deviation: list[float] = []
    """Of Regression: standard deviation of each value in the training targets, in which losses are measured."""
    class_names: list[str] = []
    segment_names: list[str] = []

    @property
    def values(self) -> int:
        """Of Regression: values a row, the columns of the targets [N, values]."""
        return self.outputs // max(1, len(self.quantiles))


class CandidateConfig(Observed):
    """How the candidate came to be. Attested by the training pod."""

    seed: int
    seeds: dict[str, int]
    """The seed of every stream, derived from `seed`."""
    plan: list[PlanRow]
    task: Task
    input_shape: list[int]
    """Without the batch dimension."""
    input_dtype: Literal["float32", "int64"] = "float32"
    vocabulary: list[str] = []
    """Of token inputs: the token of each number."""
    versions: dict[str, str]
    """Of python, torch, numpy and this package."""
    data_sha256: Sha256
    """Of the whole data set, all splits."""
    model_factory: str
    attested: Annotated[list[CheckResult], Field(max_length=64)] = []
    """What the gate's checks of the live model found in the training pod, which alone can run its code."""


class FileDigest(Wire):
    sha256: Sha256
    size: Annotated[int, Field(ge=0)]
    """Bytes."""


class Manifest(Observed):
    """SHA-256 and size of every file of the candidate."""

    files: dict[str, FileDigest]
