"""Early stopping: which epoch is the best so far, its weights, and whether to go on."""

import math

from torch import Tensor, nn

from dropout_api.training import EarlyStopping


class Best:
    """The best epoch by `rule`, with a copy of the weights it had."""

    def __init__(self, rule: EarlyStopping) -> None:
        self._rule = rule
        self._value = math.inf
        self._weights: dict[str, Tensor] = {}
        self.epoch = 0

    def offer(self, epoch: int, metrics: dict[str, float], model: nn.Module) -> bool:
        """Whether this epoch is the best so far; if so, its weights are kept."""
        value = metrics[self._rule.monitor] * (1 if self._rule.mode == "Min" else -1)
        if not value < self._value - self._rule.min_delta:
            return False
        self.epoch, self._value = epoch, value
        self._weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items() if isinstance(tensor, Tensor)}
        return True

    def exhausted(self, epoch: int) -> bool:
        """Whether patience has run out."""
        return epoch - self.epoch >= self._rule.patience

    def restore(self, model: nn.Module) -> None:
        model.load_state_dict(self._weights, strict=False)  # an extra state that is no tensor stays as it is
