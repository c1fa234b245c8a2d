"""In which precision a training step computes: autocast of the forward pass, and gradients scaled where float16 needs it.

Micikevicius et al.: Mixed Precision Training, ICLR 2018 (arXiv 1710.03740).
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
from torch import Tensor, nn

from dropout_api.names import ExitCode
from dropout_trainer.errors import StageFailure

DTYPES = {"BFloat16": torch.bfloat16, "Float16": torch.float16}
SCALER = {"scale", "growth_factor", "backoff_factor", "growth_interval", "_growth_tracker"}
"""What the state of a scaler of gradients holds."""
COUNTS = {"growth_interval", "_growth_tracker"}
"""Which of it torch takes as whole numbers alone."""
Name = Literal["Float32", "BFloat16", "Float16"]


class Step:
    """Forward, backward and update in the precision that the spec asks for. Raises StageFailure for float16 without a GPU."""

    def __init__(self, optimizer: torch.optim.Optimizer, precision: Name, device: torch.device, clip: float | None) -> None:
        if precision == "Float16" and device.type != "cuda":
            message = "spec.training.precision: Float16 needs a GPU; use BFloat16 or Float32 on a CPU, or ask for nvidia.com/gpu"
            raise StageFailure("SpecInvalid", message, ExitCode.SPEC_INVALID)
        self._optimizer, self._clip, self._device = optimizer, clip, device
        self._dtype = DTYPES.get(precision)
        self._scaler = torch.amp.GradScaler(device.type) if precision == "Float16" else None
        self._parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    def forward(self) -> AbstractContextManager[object]:
        """Within it, forward passes compute in the asked precision."""
        return nullcontext() if self._dtype is None else torch.autocast(self._device.type, self._dtype)

    def backward(self, loss: Tensor) -> None:
        """Adds the gradients of `loss`."""
        (self._scaler.scale(loss) if self._scaler else loss).backward()  # type: ignore[no-untyped-call]

    def scaler(self) -> dict[str, float] | None:
        """What the scaling of gradients has come to; None where they are not scaled."""
        return self._scaler.state_dict() if self._scaler else None

    def restore_scaler(self, state: Mapping[str, float] | None) -> None:
        if self._scaler and state:
            self._scaler.load_state_dict({name: int(value) if name in COUNTS else value for name, value in state.items()})

    def update(self) -> None:
        """Takes the step that the gradients ask for, and forgets them."""
        if self._clip is not None:
            if self._scaler:
                self._scaler.unscale_(self._optimizer)
            nn.utils.clip_grad_norm_(self._parameters, self._clip)
        if self._scaler:
            self._scaler.step(self._optimizer)
            self._scaler.update()
        else:
            self._optimizer.step()
        self._optimizer.zero_grad()
