"""What a user asks for: the spec of a `DropoutTrainingJob`.

These models are the only source of the CRD's schema (`dropout_api.crd`), of the operator's view and of the
trainer's. Field docstrings become `kubectl explain`; so they are written for the person who writes a manifest.
"""

from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import Field, JsonValue, model_validator
from pydantic.alias_generators import to_camel

from dropout_api.dropout import COMPILABLE, DropoutSpec
from dropout_api.metrics import QualityBar
from dropout_api.model import Wire
from dropout_api.pod import PodTemplate, ResourceRequirements
from dropout_api.training import Checkpoint, Restart, TrainingSpec

# A built-in's name, or "package.module:callable".
Factory = Annotated[
    str, Field(max_length=200, pattern=r"^([a-z][a-z0-9_]*|[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_.]*)$")
]
DnsLabel = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
Seconds = Annotated[int, Field(ge=1, le=31_536_000)]
RunId = Annotated[str, Field(max_length=32, pattern=r"^[0-9a-f]{32}$")]

# Free-form arguments: an object whose keys only the factory knows. See crd.py for why the schema gives it no type.
Args = Annotated[dict[str, JsonValue], Field(json_schema_extra={"x-free-form": True})]


class FactoryCall(Wire):
    """A callable and its keyword arguments."""

    factory: Factory
    """A built-in's name, or `package.module:callable` from the job's image."""
    args: Args = {}
    """Keyword arguments for the factory. Those of built-ins are checked before anything starts."""


class Weights(Wire):
    """Where weights come from, for fine-tuning: exactly one of a file, a run, or a registered version."""

    uri: Annotated[str, Field(min_length=1, max_length=1000)] | None = None
    """A safetensors file that the training pod can read: a path, or an fsspec URI as s3://bucket/weights.safetensors."""
    run: RunId | None = None
    """MLflow run of the namespace that holds a candidate: `status.run.id` of the job that trained it."""
    model: Annotated[str, Field(min_length=1, max_length=180, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")] | None = None
    """Registered model of the namespace, by its name there, as in `export.model`; with `alias` or `version`."""
    alias: Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z][a-z0-9-]*$")] | None = None
    version: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = None
    strict: bool = True
    """Refuse weights that the model lacks and parameters that the weights lack. When false, what fits by name and shape is taken; at least
    one must."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if [self.uri, self.run, self.model].count(None) != 2:
            raise ValueError(ONE_SOURCE)
        if self.model is not None and (self.alias is None) == (self.version is None):
            raise ValueError(ONE_VERSION)
        if self.model is None and (self.alias is not None or self.version is not None):
            raise ValueError(ONE_VERSION)
        return self


ONE_SOURCE = "set exactly one of uri, run, model"
ONE_VERSION = "model goes with exactly one of alias and version, and they with nothing else"


class ModelSpec(FactoryCall):
    """The network: a factory that returns a torch.nn.Module. Built-ins: mlp, cnn, resnet, transformer, lstm."""

    weights: Weights | None = None
    """Weights to start from; drawn from the seed when not set."""


class Augmentation(Wire):
    """A random change of each training batch, for images [N, channels, height, width] but for Noise, which takes any floats."""

    kind: Literal["HorizontalFlip", "RandomCrop", "Noise"]
    probability: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Of HorizontalFlip, for each row."""
    padding: Annotated[int, Field(ge=1, le=64)] = 4
    """Of RandomCrop: zeros around the image, in pixels, from which a crop of its own size is taken."""
    deviation: Annotated[float, Field(gt=0, le=1000)] = 0.1
    """Of Noise: standard deviation of what is added, in units of each feature's own where the data have a scaling."""


class DataSpec(FactoryCall):
    """The data: a factory that returns train, validation and test sets. Built-ins: sklearn, fashion_mnist, csv, parquet, npz, series, text,
    images, hugging_face."""

    augmentation: Annotated[list[Augmentation], Field(max_length=8)] = []
    """Applied in this order to training batches alone."""


class CandidateSource(Wire):
    """An existing candidate to verify again, with this job's `gate` and `export`: after a quality bar was wrong, or a verifier
    died. Nothing is trained, so `model`, `data`, `image` and a dropout plan do not go with it."""

    run: RunId
    """MLflow run that holds the candidate: `status.run.id` of the job that trained it, in this namespace."""


class TrackingSpec(Wire):
    """Where the run is recorded in MLflow."""

    experiment: Annotated[str, Field(min_length=1, max_length=180, pattern=r"^[A-Za-z0-9][A-Za-z0-9_. -]*$")] | None = None
    """Experiment, within the namespace's own: in MLflow it is called `namespace.experiment`. The job's name when not set."""


class Format(StrEnum):
    PT2 = "PT2"
    """A program of torch.export: what the gate judges and a version answers with."""
    ONNX = "ONNX"


class ExportSpec(Wire):
    """What becomes of a model that passes the gate."""

    model: Annotated[str, Field(min_length=1, max_length=180, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")] | None = None
    """Registered model, within the namespace's own: in MLflow it is called `namespace.model`. The job's name when not set."""
    alias: Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z][a-z0-9-]*$")] | None = None
    """Alias that is moved to the new version once it is registered and compared, as `champion`."""
    mc_passes: Annotated[int, Field(ge=1, le=1000)] | None = None
    """The version also gets an MC-dropout program, which answers a call with the mean or the deviation of several passes with dropout
    on. Used only where a call asks for it with its parameter `mc_passes`; this is the most that one call may ask for. The model must
    have dropout."""

    formats: Annotated[list[Format], Field(min_length=1, max_length=2, json_schema_extra={"x-kubernetes-list-type": "set"})] = [Format.PT2]
    """Forms in which the version holds the model. PT2 is always one of them; ONNX adds a file for other runtimes, judged by itself. A
    model that has no form in ONNX fails before its training starts."""

    @model_validator(mode="after")
    def _with_pt2_and_each_once(self) -> Self:
        if Format.PT2 not in self.formats:
            raise ValueError(f"formats: {PT2_REQUIRED}")
        if len(set(self.formats)) < len(self.formats):
            raise ValueError("formats: name each format once")
        return self

    @model_validator(mode="after")
    def _not_a_version_number(self) -> Self:
        if self.alias in ("latest",):
            raise ValueError("alias: 'latest' is reserved by MLflow; choose another name")
        return self


class TtlSpec(Wire):
    """Seconds after its end at which the job object (never the run or the model) is deleted; kept when not set."""

    succeeded: Annotated[int, Field(ge=0, le=31_536_000)] | None = None
    rejected: Annotated[int, Field(ge=0, le=31_536_000)] | None = None
    failed: Annotated[int, Field(ge=0, le=31_536_000)] | None = None


class Determinism(StrEnum):
    STRICT = "Strict"
    WARN_ONLY = "WarnOnly"
    OFF = "Off"


class JobSpec(Wire):
    """One training, or with `from` one more verification. Immutable but for `suspend` and `ttlSecondsAfterFinished`, and the
    pod template's scheduling fields while the job is suspended: to change anything else, create a new job."""

    model: ModelSpec | None = None
    data: DataSpec | None = None
    source: Annotated[CandidateSource | None, Field(alias="from")] = None
    dropout: DropoutSpec = DropoutSpec()
    training: TrainingSpec = TrainingSpec()
    seed: Annotated[int, Field(ge=0, le=4_294_967_295)] = 42
    """The one seed from which every random stream (python, numpy, torch, shuffling) is derived. All are recorded."""
    determinism: Determinism = Determinism.WARN_ONLY
    """Strict refuses operations that have no deterministic form, WarnOnly warns, "Off" leaves torch as it is; write it in
    quotes, because YAML reads a bare Off as false."""
    command: Annotated[list[Annotated[str, Field(max_length=4096)]], Field(min_length=1, max_length=64)] | None = None
    """A program of your own instead of `model` and `data`, as [python, train.py]. It trains as it likes and hands its model over through
    dropout_trainer.loop; plan, run, checkpoints, gate and registration are the platform's."""
    image: Annotated[str, Field(min_length=1, max_length=500)] | None = None
    """Image of the training pod; the platform's trainer image when not set. Derive yours from that one."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    image_pull_secrets: Annotated[list[DnsLabel], Field(max_length=16)] = []
    """Names of Secrets in the job's namespace."""
    nodes: Annotated[int, Field(ge=1, le=1000)] = 1
    """Pods that train one model together (DistributedDataParallel). All start, end and are tried again together."""
    processes_per_node: Annotated[int, Field(ge=1, le=64)] | None = None
    """Training processes of each pod. When not set, one for each GPU of `resourcesPerNode.limits`, a MIG slice being one GPU; 1 without."""
    resources_per_node: ResourceRequirements = ResourceRequirements()
    """Resources of the training container, as `limits: {nvidia.com/gpu: 1}`. Defaults come from the platform."""
    pod_template: PodTemplate = PodTemplate()
    """What the training pod may have beyond its image: where it runs, environment, volumes, service account."""
    tracking: TrackingSpec = TrackingSpec()
    export: ExportSpec = ExportSpec()
    gate: Annotated[list[QualityBar], Field(max_length=16)] = []
    """Quality bars on top of the eval-mode gate. The eval-mode gate itself cannot be switched off."""
    checkpoint: Checkpoint | None = None
    restart: Restart = Restart()
    suspend: bool = False
    """Stops the job's pod, or holds it back. After resuming, training goes on from its last checkpoint; without `checkpoint` it starts
    over from the first epoch."""
    start_deadline_seconds: Seconds = 600
    """Seconds that a scheduled pod may take until its training runs. Waiting for a free node is not counted."""
    active_deadline_seconds: Seconds | None = None
    """Seconds that training may take over all attempts; time spent suspended is not counted."""
    ttl_seconds_after_finished: TtlSpec = TtlSpec()

    @model_validator(mode="after")
    def _compiled_at_few_rates(self) -> Self:
        moving = [number for number, rule in enumerate(self.dropout.layers) if rule.schedule.kind not in COMPILABLE]
        if self.training.compile and moving:
            raise ValueError(f"dropout.layers[{moving[0]}].schedule {COMPILED_AT_FEW_RATES}")
        return self

    @model_validator(mode="after")
    def _trained_or_from(self) -> Self:
        if self.source is None:
            given = [name for name in REQUIRED_TO_TRAIN if getattr(self, name) is not None]
            if self.command is None and len(given) < len(REQUIRED_TO_TRAIN):
                raise ValueError(f"{next(name for name in REQUIRED_TO_TRAIN if name not in given)} {REQUIRED}")
            if self.command is not None and given:
                raise ValueError(f"{given[0]} {UNUSED_WITH_COMMAND}")
            return self
        used = [name for name in UNUSED_WITH_FROM if getattr(self, name) is not None]
        if self.dropout != DropoutSpec():
            used.append("dropout")
        if used:
            raise ValueError(f"{to_camel(used[0])} {UNUSED}")
        return self


    @property
    def processes(self) -> int:
        """Training processes of a pod."""
        return self.processes_per_node or max(1, self.resources_per_node.gpus)

    @property
    def world_size(self) -> int:
        """Training processes of all pods."""
        return self.nodes * self.processes


class TrainingJobSpec(JobSpec):
    """The spec of a job that the trainer itself trains."""

    model: ModelSpec
    data: DataSpec


class CommandJobSpec(JobSpec):
    """The spec of a job that a program of the user's trains."""

    command: Annotated[list[str], Field(min_length=1)]


COMPILED_AT_FEW_RATES = "does not go with training.compile when it is Linear or Curriculum, which would compile anew at each step"
REQUIRED_TO_TRAIN = ("model", "data")
REQUIRED = "is required, unless spec.command trains or spec.from names a run whose candidate is to be verified again"
UNUSED_WITH_COMMAND = "does not go with spec.command: your own program brings its model and its data"
PT2_REQUIRED = "must hold PT2, which is what the gate judges and a version answers with"
UNUSED_WITH_FROM = (*REQUIRED_TO_TRAIN, "command", "image", "image_pull_policy", "checkpoint", "active_deadline_seconds")
"""What says how to train, as far as its being set can be seen: a field with a default looks the same either way."""
UNUSED = "does not go with spec.from: an existing candidate is verified again and nothing is trained"

IMMUTABLE_UNLESS_SUSPENDED = ("node_selector", "tolerations", "affinity", "priority_class_name")
"""Fields of the pod template that may change while the job is suspended, as a queue like Kueue needs."""

MUTABLE = ("suspend", "ttl_seconds_after_finished", "pod_template")
"""Fields of the spec that an update may touch; the pod template has its own rules."""

JsonObject = dict[str, Any]
