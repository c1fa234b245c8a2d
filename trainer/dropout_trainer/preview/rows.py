"""The dropout plan of a model that is not trained yet, as the trainer will make it, and how it is printed."""

from collections.abc import Sequence

import torch
from rich.table import Table
from torch import nn

from dropout_api.candidate import PlanRow
from dropout_api.spec import TrainingJobSpec
from dropout_trainer.data import Data
from dropout_trainer.train.plan import make_plan
from dropout_trainer.verify.terminal import plain

COLUMNS = ("layer", "kind", "type", "rate", "why")


def rows(model: nn.Module, data: Data, spec: TrainingJobSpec, device: torch.device) -> list[PlanRow]:
    """Raises StageFailure for a rule that matches no layer."""
    return make_plan(model, spec.dropout)


def rendered(plan: Sequence[PlanRow]) -> Table:
    table = Table(*COLUMNS, box=None, padding=(0, 2, 0, 0))
    for row in plan:
        table.add_row(*map(plain, (row.layer, row.kind.value, row.type, f"{row.rate:g}", row.why)))
    return table
