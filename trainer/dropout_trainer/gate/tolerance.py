"""When two outputs count as equal although they were computed in another order.

Bitwise equality holds for repeats of one call only: a row alone and the same row in a batch differ by 5e-5 on CPU matrix
products, an eager fast path and its export by 5e-7 (measured). A dropout that is on moves logits by tenths of their size.
"""

from dataclasses import dataclass

import torch

RELATIVE = 1e-3
"""Of a row's largest absolute output, but at least of 1."""


@dataclass(frozen=True)
class Difference:
    largest: float
    """Largest absolute difference; NaN when either side is not finite."""
    allowed: float
    """What the row with the largest excess was allowed."""
    row: int

    @property
    def equal(self) -> bool:
        return self.largest <= self.allowed

    def __str__(self) -> str:
        return f"largest difference {self.largest:.3g}, allowed {self.allowed:.3g}, at row {self.row}"


def difference(actual: torch.Tensor, expected: torch.Tensor) -> Difference:
    """Compares two outputs [N, classes], row by row."""
    gaps = (actual.double() - expected.double()).abs().amax(dim=1)
    allowed = RELATIVE * expected.double().abs().amax(dim=1).clamp(min=1.0)
    excess = torch.nan_to_num(gaps / allowed, nan=torch.inf)
    worst = int(excess.argmax())
    return Difference(float(gaps[worst]), float(allowed[worst]), worst)
