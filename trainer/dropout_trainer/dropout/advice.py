"""Warnings about places and rates of dropout that are known to hurt, each with its reason and source."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dropout_api.candidate import PlanRow
from dropout_api.dropout import DropoutAction, DropoutKind, ScheduleKind
from dropout_trainer.dropout.observed import Forward, answer, observe
from dropout_trainer.dropout.places import layers
from dropout_trainer.dropout.schedules import peak

ROWS = 4
"""Rows of the inputs on which the model is watched."""
ELEMENTS = (DropoutKind.STANDARD, DropoutKind.ALPHA)
SHIFTING = (DropoutKind.STANDARD, DropoutKind.SPATIAL, DropoutKind.VARIATIONAL)
"""Kinds that zero activations and scale up the rest. Alpha dropout keeps the variance; of weights, tokens and branches the effect on a
norm has not been shown to hurt."""
HIGHEST = 0.5


@dataclass(frozen=True)
class Setting:
    """What a warning is judged by."""

    model: nn.Module
    inputs: Tensor
    forward: Forward
    training_rows: int

    @property
    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.model.parameters() if parameter.requires_grad)


def with_warnings(plan: Sequence[PlanRow], model: nn.Module, inputs: Tensor, training_rows: int) -> list[PlanRow]:
    """The same rows with their `warnings` filled. `inputs` [N, ...] are examples, N ≥ 2; `training_rows` is the size of the training set.

    The model runs in eval mode, before or after the plan was applied to it. Its modes, its buffers and all random streams are
    afterwards as before.
    """
    live = {row.layer for row in plan if peak(row.rate, row.schedule) > 0}
    if not live:
        return list(plan)
    device = next((parameter.device for parameter in model.parameters()), inputs.device)
    example = inputs[:ROWS].to(device)
    setting = Setting(model, example, observe(model, example, live), training_rows)
    return [row.model_copy(update={"warnings": _warnings(row, setting)}) for row in plan]


def _warnings(row: PlanRow, setting: Setting) -> list[str]:
    if peak(row.rate, row.schedule) == 0:
        return []
    return [text for warn in WARNINGS if (text := warn(row, setting))]


def never_runs(row: PlanRow, setting: Setting) -> str:
    """A hook on a layer whose parameters alone are used does nothing; a layer may be called in training alone, or keep but a rate."""
    if row.layer in setting.forward.ran:
        return ""
    return "no forward in eval mode calls this layer: its dropout has no effect unless one in training mode does, or reads its rate"


def before_norm(row: PlanRow, setting: Setting) -> str:
    """Li et al., CVPR 2019, arXiv 1801.05134."""
    order, norm = setting.forward.last_norm
    if row.kind not in SHIFTING or order <= setting.forward.ran.get(row.layer, order):
        return ""
    return (
        f"batch norm runs after it ({norm}): dropout raises the variance that the norm learns in training and divides by in eval mode, "
        "where it is lower (variance shift, arXiv 1801.05134); put dropout behind the last batch norm"
    )


def before_softmax(row: PlanRow, setting: Setting) -> str:
    """A zero is no missing logit: after softmax it is the probability of an average class, and the rest is scaled to false certainty."""
    if row.kind in ELEMENTS and row.layer in setting.forward.softmaxed:
        return "a softmax follows at once: a zeroed logit is a vote like any other, the rest is scaled up; put it before the last layer"
    if row.kind in ELEMENTS and row.action is not DropoutAction.WRAP and row.layer in setting.forward.answers:
        return "it drops parts of the model's answer itself: a zeroed logit is a vote like any other; put dropout before the last layer"
    return ""


def on_embedding(row: PlanRow, setting: Setting) -> str:
    """Gal, Ghahramani, arXiv 1512.05287, section 4.2."""
    if row.kind is not DropoutKind.STANDARD or row.layer not in setting.forward.embedded:
        return ""
    return (
        "single elements of an embedding are dropped, each time others, so that every token stays readable from the rest; "
        "action Wrap with kind Embedding drops tokens (arXiv 1512.05287)"
    )


def too_high(row: PlanRow, setting: Setting) -> str:
    """Srivastava et al., JMLR 15 (2014), section 7.3: the test error rises once less than about half is kept. Scaled dropout has variance
    x² p / (1 − p): above one half that exceeds the signal's own square."""
    if peak(row.rate, row.schedule) <= HIGHEST:
        return ""
    return (
        f"a rate of {peak(row.rate, row.schedule):g} is above 0.5, from where on the noise has more power than the signal and training "
        "underfits (JMLR 15, 2014, section 7.3)"
    )


def too_small(row: PlanRow, setting: Setting) -> str:
    """Dropout is against overfitting. A model with fewer numbers to adapt than there are rows cannot learn these by heart; what helps
    one that underfits is dropout in the beginning alone (arXiv 2303.01500)."""
    if setting.parameters >= setting.training_rows or row.schedule.kind is ScheduleKind.EARLY:
        return ""
    return (
        f"the model has {setting.parameters} parameters for {setting.training_rows} training rows: too small to learn them by heart, so "
        "dropout costs it more than it gives; schedule Early helps models that underfit (arXiv 2303.01500)"
    )


def no_way_around(row: PlanRow, setting: Setting) -> str:
    """Stochastic depth drops a branch; without a shortcut beside it a dropped row has nothing left (arXiv 1603.09382)."""
    if row.kind is not DropoutKind.STOCHASTIC_DEPTH or row.action is not DropoutAction.WRAP or row.layer not in setting.forward.ran:
        return ""
    layer = dict(layers(setting.model))[row.layer]
    with_it, without = answer(setting.model, setting.inputs), answer(setting.model, setting.inputs, layer)
    if with_it is None or without is None or _one_answer(with_it) or not _one_answer(without):
        return ""
    return (
        "nothing goes around this layer: a row for which it is dropped keeps nothing of its input; wrap the branch beside a shortcut "
        "(arXiv 1603.09382)"
    )


def _one_answer(outputs: Tensor) -> bool:
    """Whether every row gets the same answer."""
    return bool(torch.allclose(outputs, outputs[:1].expand_as(outputs)))


WARNINGS: tuple[Callable[[PlanRow, Setting], str], ...] = (
    never_runs, before_norm, before_softmax, on_embedding, too_high, too_small, no_way_around,
)
"""In the order in which they are told."""
