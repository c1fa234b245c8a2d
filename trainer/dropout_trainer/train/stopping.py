"""Early stopping: which epoch is the best so far, its weights, and whether to go on."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from dropout_api.metrics import smaller_is_better
from dropout_api.names import ExitCode
from dropout_api.training import EarlyStopping
from dropout_trainer.errors import StageFailure

UNDEFINED = (
    "spec.training.earlyStopping.monitor: {} is not defined on the validation set, as an area under the ROC curve of one class alone; "
    "give that set more rows or monitor val_loss"
)


@dataclass(frozen=True)
class Snapshot:
    """A copy of a model's weights and buffers, as they were after an epoch; nobody writes to its tensors."""

    epoch: int
    weights: Mapping[str, Tensor]

    @staticmethod
    def of(model: nn.Module, epoch: int) -> "Snapshot":
        return Snapshot(epoch, {name: tensor.clone() for name, tensor in tensors_of(model).items()})

    def restore(self, model: nn.Module) -> None:
        model.load_state_dict(dict(self.weights), strict=False)  # an extra state that is no tensor stays as it is


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """Those of the state dict; the model's own memory, not copies."""
    return {name: tensor.detach() for name, tensor in model.state_dict().items() if isinstance(tensor, Tensor)}


class Best:
    """The best epoch by `rule`, with a copy of the weights it had."""

    def __init__(self, rule: EarlyStopping) -> None:
        self._rule = rule
        smaller = smaller_is_better(rule.monitor) if rule.mode == "Auto" else rule.mode == "Min"
        self._sign = 1 if smaller else -1
        self.value = math.inf
        """Of the monitored metric, turned so that smaller is better; infinite before the first epoch."""
        self.kept: Snapshot | None = None

    @property
    def epoch(self) -> int:
        """0 before the first."""
        return self.kept.epoch if self.kept else 0

    def offer(self, epoch: int, metrics: Mapping[str, float], model: nn.Module) -> bool:
        """Whether this epoch is the best so far; if so, its weights are kept. `metrics` are those of `EpochResult`, by name.

        Raises StageFailure when the monitor is NaN, with which no epoch is better than another.
        """
        value = metrics[self._rule.monitor] * self._sign
        if math.isnan(value):
            raise StageFailure("SpecInvalid", UNDEFINED.format(self._rule.monitor), ExitCode.SPEC_INVALID)
        if not value < self.value - self._rule.min_delta:
            return False
        self.value, self.kept = value, Snapshot.of(model, epoch)
        return True

    def exhausted(self, epoch: int) -> bool:
        """Whether patience has run out."""
        return epoch - self.epoch >= self._rule.patience

    def restore(self, model: nn.Module) -> None:
        """The weights of the best epoch."""
        if self.kept:
            self.kept.restore(model)
