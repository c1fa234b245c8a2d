"""The dropout plan as a user writes it: which layers, which kind of dropout, at which rate, when."""

from enum import StrEnum
from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from dropout_api.model import OneOfSeveral, Wire

Rate = Annotated[float, Field(ge=0, lt=1)]


class DropoutKind(StrEnum):
    STANDARD = "Standard"
    """Single elements: nn.Dropout, and the `dropout` of nn.LSTM, nn.GRU and nn.RNN."""
    SPATIAL = "Spatial"
    """Whole channels: nn.Dropout1d, nn.Dropout2d, nn.Dropout3d (Tompson et al., arXiv 1411.4280)."""
    ALPHA = "Alpha"
    """Keeps mean and variance, for networks with SELU: nn.AlphaDropout (arXiv 1706.02515)."""
    VARIATIONAL = "Variational"
    """One mask for a whole sequence (Gal, Ghahramani, arXiv 1512.05287)."""
    EMBEDDING = "Embedding"
    """Whole tokens: the same rows of nn.Embedding for a whole batch (arXiv 1512.05287)."""
    DROP_CONNECT = "DropConnect"
    """Weights instead of activations (Wan et al., ICML 2013); of recurrent layers the hidden-to-hidden ones (arXiv 1708.02182)."""
    STOCHASTIC_DEPTH = "StochasticDepth"
    """A whole residual branch, by row (Huang et al., arXiv 1603.09382)."""
    ATTENTION = "Attention"
    """Attention weights: the `dropout` of nn.MultiheadAttention and of modules around scaled_dot_product_attention."""


class DropoutAction(StrEnum):
    SET = "Set"
    INSERT = "Insert"
    WRAP = "Wrap"


class ScheduleKind(StrEnum):
    CONSTANT = "Constant"
    LINEAR = "Linear"
    EARLY = "Early"
    LATE = "Late"
    CURRICULUM = "Curriculum"


COMPILABLE = (ScheduleKind.CONSTANT, ScheduleKind.EARLY, ScheduleKind.LATE)
"""Schedules that go with torch.compile, which builds a program for each rate."""


class Schedule(OneOfSeveral):
    """How a rate moves in training, step by step; t is the share of all steps that are done, 0 to 1."""

    CHOICE: ClassVar = "kind"
    USED_BY: ClassVar = {
        "start_rate": (ScheduleKind.LINEAR,), "fraction": (ScheduleKind.LINEAR, ScheduleKind.EARLY, ScheduleKind.LATE),
        "gamma": (ScheduleKind.CURRICULUM,),
    }

    kind: ScheduleKind = ScheduleKind.CONSTANT
    """Constant: `rate`. Linear: from `startRate` to `rate` until t is `fraction`. Early: `rate` until t is `fraction`, then off; Late: off
    until then, `rate` after (both arXiv 2303.01500). Curriculum: rate × (1 − exp(−gamma × t)) (arXiv 1703.06229)."""
    start_rate: Rate = 0.0
    """Of Linear, where it starts."""
    fraction: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Of Linear, Early and Late: the share of all steps at which they turn."""
    gamma: Annotated[float, Field(gt=0, le=1000)] = 10.0
    """Of Curriculum: how fast the rate rises; at 10, as the paper has it, 99 % of it is reached at half of the training."""


class DropoutRule(Wire):
    """Sets the rate of dropout that is there (Set), or adds some (Insert, Wrap). Of each action the first rule that
    matches a layer decides."""

    match: Annotated[str, Field(min_length=1, max_length=200)] = "*"
    """Shell-style pattern over the layer's dotted name in the model, as `features.*` or `*.dropout`."""
    type: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = None
    """Only layers of this class, as `Linear`; every class when not set."""
    action: DropoutAction = DropoutAction.SET
    """Set: the rate of dropout layers that the model has. Insert: dropout of `kind` after the matched layers (Standard, Spatial, Alpha,
    Variational). Wrap: the matched layers' weights (DropConnect), rows (Embedding) or whole output (StochasticDepth)."""
    kind: DropoutKind | None = None
    """With Set: only layers of this kind, every kind when not set. With Insert and Wrap: what to add."""
    rate: Rate
    """Probability that an element (of Spatial a channel, and so on) is zeroed in training; 0 switches the layer off."""
    schedule: Schedule = Schedule()

    @model_validator(mode="after")
    def _kind_fits_the_action(self) -> Self:
        if problem := next((text for action, kinds, text in ADDED if self.action is action and self.kind not in kinds), None):
            raise ValueError(problem)
        return self


INSERTED = (DropoutKind.STANDARD, DropoutKind.SPATIAL, DropoutKind.ALPHA, DropoutKind.VARIATIONAL)
WRAPPED = (DropoutKind.DROP_CONNECT, DropoutKind.EMBEDDING, DropoutKind.STOCHASTIC_DEPTH)
ADDED = tuple(
    (action, kinds, f"kind: action {action.value} needs one of {', '.join(kinds)}")
    for action, kinds in ((DropoutAction.INSERT, INSERTED), (DropoutAction.WRAP, WRAPPED))
)
"""Which kinds an action can add, and what to say of another."""


class Implementation(StrEnum):
    AUTO = "Auto"
    NATIVE = "Native"
    FAST = "Fast"


class DropoutSpec(Wire):
    """The dropout plan. What the model's code says holds for layers that neither `rate` nor a rule names."""

    rate: Rate | None = None
    """Rate of every dropout layer that no rule matches."""
    implementation: Implementation = Implementation.AUTO
    """How nn.Dropout draws its masks in training. Fast: sixteen random bits for each element, several times as fast on a CPU. Native:
    torch's own. Auto: Fast on a CPU, Native on a GPU and with `training.compile`. One seed gives other masks in each; which one was
    used is recorded. An exported model has neither."""
    layers: Annotated[list[DropoutRule], Field(max_length=64)] = []
    """Rules, of each action first match wins. One that matches no layer of the model is an error."""
