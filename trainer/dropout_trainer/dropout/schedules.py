"""How a rate moves in training. Formulas and sources are those of `dropout_api.dropout.Schedule`."""

import math

from dropout_api.dropout import Schedule, ScheduleKind


def rate_at(rate: float, schedule: Schedule, t: float) -> float:
    """The rate when a share `t` of all steps is done, 0 to 1; `rate` is the rule's."""
    match schedule.kind:
        case ScheduleKind.CONSTANT:
            return rate
        case ScheduleKind.LINEAR:
            done = min(t / schedule.fraction, 1.0)
            return schedule.start_rate * (1 - done) + rate * done
        case ScheduleKind.EARLY:
            return rate if t < schedule.fraction else 0.0
        case ScheduleKind.LATE:
            return 0.0 if t < schedule.fraction else rate
        case ScheduleKind.CURRICULUM:
            return rate * -math.expm1(-schedule.gamma * t)


def peak(rate: float, schedule: Schedule) -> float:
    """The highest rate of the whole training."""
    return max(rate, schedule.start_rate) if schedule.kind is ScheduleKind.LINEAR else rate


def described(rate: float, schedule: Schedule) -> str:
    """For people, as `Linear 0 → 0.3 until 50 %`."""
    turn = f"{schedule.fraction:.0%}".replace("%", " %")
    match schedule.kind:
        case ScheduleKind.CONSTANT:
            return "Constant"
        case ScheduleKind.LINEAR:
            return f"Linear {schedule.start_rate:g} → {rate:g} until {turn}"
        case ScheduleKind.EARLY:
            return f"Early until {turn}"
        case ScheduleKind.LATE:
            return f"Late from {turn}"
        case ScheduleKind.CURRICULUM:
            return f"Curriculum gamma {schedule.gamma:g}"
