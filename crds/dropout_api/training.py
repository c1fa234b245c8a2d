"""The training loop as a user writes it."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from dropout_api.metrics import MetricName, Monitor
from dropout_api.model import OneOfSeveral, Wire

LearningRate = Annotated[float, Field(gt=0, le=100)]
WeightDecay = Annotated[float, Field(ge=0, le=100)]
Pattern = Annotated[str, Field(min_length=1, max_length=200)]


class ParameterGroup(Wire):
    """Parameters with a rate of their own; the first group that matches a parameter decides."""

    match: Pattern
    """Shell-style pattern over the parameter's dotted name, as `features.*` or `*.bias`."""
    learning_rate: LearningRate | None = None
    weight_decay: WeightDecay | None = None


class Optimizer(OneOfSeveral):
    """The optimiser, as in torch.optim."""

    CHOICE: ClassVar = "name"
    USED_BY: ClassVar = {"momentum": ("SGD", "RMSprop")}

    name: Literal["AdamW", "Adam", "SGD", "RMSprop"] = "AdamW"
    learning_rate: LearningRate = 0.001
    weight_decay: WeightDecay = 0.01
    """Decoupled for AdamW, an L2 term for the others."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Of SGD and RMSprop."""
    groups: Annotated[list[ParameterGroup], Field(max_length=32)] = []
    """Parameters that differ. A group that matches no parameter of the model is an error."""


class Scheduler(OneOfSeveral):
    """How the learning rate moves, step by step, as a factor on every group's own rate."""

    CHOICE: ClassVar = "name"
    USED_BY: ClassVar = {"min_factor": ("Cosine", "Step"), "step_epochs": ("Step",), "gamma": ("Step",)}

    name: Literal["Constant", "Cosine", "Step", "OneCycle"] = "Constant"
    """Cosine: down to `minFactor` along half a cosine (arXiv 1608.03983, one cycle). Step: times `gamma` every `stepEpochs`. OneCycle: up
    from a 25th, then down to a 250000th (arXiv 1708.07120); the rate that is given is the highest."""
    warmup_epochs: Annotated[float, Field(ge=0, le=1000)] = 0.0
    """Epochs in which the factor first rises from 0 in a line; not with OneCycle, which has its own."""
    min_factor: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Of Cosine and Step, below which the factor does not fall."""
    step_epochs: Annotated[int, Field(ge=1, le=100_000)] = 30
    """Of Step."""
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Of Step."""

    @model_validator(mode="after")
    def _one_warm_up(self) -> Self:
        if self.name == "OneCycle" and self.warmup_epochs:
            raise ValueError(f"warmupEpochs: {ONE_WARM_UP}")
        return self


ONE_WARM_UP = "does not go with OneCycle, which warms up by itself"
QUANTILES = "quantiles: the loss Quantile needs them, and no other takes them"
ONE_WEIGHTING = "weights: give them or classWeights: Balanced, not both"
MORE_THAN_ONE = "folds: give 2 or more, or repeats of 2 or more"


class Loss(Wire):
    """What is minimised. Its default follows from the data: CrossEntropy for classes, MSE for values."""

    name: Literal["CrossEntropy", "MSE", "MAE", "Huber", "Quantile"] | None = None
    """Losses of values are taken in units of the training targets' standard deviation."""
    class_weights: Literal["Equal", "Balanced"] = "Equal"
    """Balanced: each class weighs as if it had as many training rows as the others. In training alone; losses that are reported
    count each row once."""
    weights: Annotated[list[Annotated[float, Field(gt=0, le=1e6)]], Field(max_length=10_000)] = []
    """Weight of each class by its number, instead of `classWeights`."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    quantiles: Annotated[list[Annotated[float, Field(gt=0, lt=1)]], Field(max_length=16)] = []
    """Of Quantile, in rising order and with 0.5, which is the forecast itself; the model answers each of them for each value."""

    @model_validator(mode="after")
    def _quantiles(self) -> Self:
        if (self.name == "Quantile") != bool(self.quantiles):
            raise ValueError(QUANTILES)
        if self.quantiles and (sorted(set(self.quantiles)) != self.quantiles or 0.5 not in self.quantiles):
            raise ValueError("quantiles: must rise and hold 0.5, as [0.05, 0.5, 0.95]")
        return self

    @model_validator(mode="after")
    def _of_classes(self) -> Self:
        if self.weights and self.class_weights == "Balanced":
            raise ValueError(ONE_WEIGHTING)
        if self.name not in (None, "CrossEntropy") and (self.weights or self.class_weights == "Balanced" or self.label_smoothing):
            raise ValueError(f"name: class weights and label smoothing go with CrossEntropy, not with {self.name}")
        return self


class EarlyStopping(Wire):
    """Stop when a monitored metric has not improved, and keep the weights of its best epoch."""

    monitor: Monitor = "val_loss"
    mode: Literal["Auto", "Min", "Max"] = "Auto"
    """Whether smaller or larger is better; Auto knows it of each metric."""
    patience: Annotated[int, Field(ge=1, le=10_000)] = 5
    """Epochs without improvement after which training stops."""
    min_delta: Annotated[float, Field(ge=0, le=1_000_000)] = 0.0
    """Smallest change that counts as an improvement."""


class CrossValidation(Wire):
    """Trainings that come before the one whose model is kept: they tell how much of a result is chance."""

    folds: Annotated[int, Field(ge=0, le=50)] = 0
    """Training and validation rows together are cut into so many parts; each in turn is the validation set. 0: the split stays."""
    repeats: Annotated[int, Field(ge=1, le=50)] = 1
    """How often, each time under another seed."""

    @model_validator(mode="after")
    def _more_than_one(self) -> Self:
        if self.folds == 1 or (self.folds == 0 and self.repeats == 1):
            raise ValueError(MORE_THAN_ONE)
        return self


class TrainingSpec(Wire):
    """The training loop."""

    epochs: Annotated[int, Field(ge=1, le=100_000)] = 10
    batch_size: Annotated[int, Field(ge=1, le=1_048_576)] = 64
    optimizer: Optimizer = Optimizer()
    scheduler: Scheduler = Scheduler()
    loss: Loss = Loss()
    metrics: Annotated[list[MetricName], Field(max_length=16, json_schema_extra={"x-kubernetes-list-type": "set"})] = []
    """Measured on the validation set after each epoch, beside loss and, of classes, accuracy."""
    early_stopping: EarlyStopping | None = None
    gradient_clip_norm: Annotated[float, Field(gt=0, le=1_000_000)] | None = None
    """Largest 2-norm of all gradients together; not clipped when not set."""
    gradient_accumulation: Annotated[int, Field(ge=1, le=10_000)] = 1
    """Batches whose gradients are averaged into one step."""
    precision: Literal["Float32", "BFloat16", "Float16"] = "Float32"
    """Of the forward pass in training (torch.autocast). Weights stay float32, and so does what is exported. Float16 needs a GPU."""
    compile: bool = False
    """Trains through torch.compile; the image must have a C++ compiler for it."""
    freeze: Annotated[list[Pattern], Field(max_length=64)] = []
    """Shell-style patterns over parameters that are not trained, as `features.*`; batch norms among their modules keep their statistics."""
    cross_validation: CrossValidation | None = None


class Checkpoint(Wire):
    """Where and how often a training saves all that it needs to go on as if nothing had happened. Exactly one place."""

    every_epochs: Annotated[int, Field(ge=1, le=100_000)] = 1
    every_steps: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = None
    """Also within an epoch, after so many optimiser steps."""
    keep: Annotated[int, Field(ge=1, le=100)] = 2
    """The latest ones that stay; the best epoch's weights stay besides."""
    volume_claim: Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")] | None = None
    """A persistent volume claim of the job's namespace; several jobs may share one."""
    uri: Annotated[str, Field(min_length=1, max_length=1000)] | None = None
    """A folder that fsspec can write from the training pod, as s3://bucket/checkpoints."""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.volume_claim is None) == (self.uri is None):
            raise ValueError(ONE_PLACE)
        return self


ONE_PLACE = "volumeClaim: set exactly one of volumeClaim and uri"


class Restart(Wire):
    """When a training that was cut off is begun again, from its last checkpoint or from the first epoch."""

    max_restarts: Annotated[int, Field(ge=0, le=100)] = 3
    """Restarts that count: after a kill, a lost pod, or a tracking server that went away. Those that Kubernetes itself asks for (eviction,
    preemption, a drained or lost node) do not count; all attempts together end at ten times this number and ten."""
