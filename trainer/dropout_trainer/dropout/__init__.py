"""Typed dropout for any torch module: make a plan, apply it, move its rates in training, read it back.

    from dropout_trainer.dropout import DropoutSpec, apply_plan, make_plan

Works in a training loop of one's own as in the operator's.
"""

from dropout_api.candidate import PlanRow
from dropout_api.dropout import DropoutAction, DropoutKind, DropoutRule, DropoutSpec, Implementation, Schedule, ScheduleKind
from dropout_trainer.dropout.advice import with_warnings
from dropout_trainer.dropout.fast import FastDropout, fast_dropout
from dropout_trainer.dropout.layers import EmbeddingDropout, SpatialDropout, StochasticDepth, VariationalDropout
from dropout_trainer.dropout.native import to_native
from dropout_trainer.dropout.plan import AppliedPlan, apply_plan, make_plan, resolve_fast
from dropout_trainer.dropout.schedules import rate_at

__all__ = [
    "AppliedPlan", "DropoutAction", "DropoutKind", "DropoutRule", "DropoutSpec", "EmbeddingDropout", "FastDropout", "Implementation",
    "PlanRow", "Schedule", "ScheduleKind", "SpatialDropout", "StochasticDepth", "VariationalDropout", "apply_plan", "fast_dropout",
    "make_plan", "rate_at", "resolve_fast", "to_native", "with_warnings",
]
