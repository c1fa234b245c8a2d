"""Each schedule has the rates of its formula at every share of the training, in the plan and in the model."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from dropout_trainer.dropout import DropoutRule, DropoutSpec, Schedule, ScheduleKind, apply_plan, make_plan, rate_at
from dropout_trainer.dropout.schedules import described, peak
from dropout_trainer.errors import StageFailure
from dropout_trainer.train.modes import drawing, require_active

SHARES = (0.0, 0.25, 0.5, 1.0)
CURVES = [
    (Schedule(), (0.4, 0.4, 0.4, 0.4)),
    (Schedule(kind=ScheduleKind.LINEAR), (0.0, 0.2, 0.4, 0.4)),
    (Schedule(kind=ScheduleKind.LINEAR, start_rate=0.8, fraction=1), (0.8, 0.7, 0.6, 0.4)),
    (Schedule(kind=ScheduleKind.EARLY), (0.4, 0.4, 0.0, 0.0)),
    (Schedule(kind=ScheduleKind.EARLY, fraction=0.2), (0.4, 0.0, 0.0, 0.0)),
    (Schedule(kind=ScheduleKind.LATE), (0.0, 0.0, 0.4, 0.4)),
    (Schedule(kind=ScheduleKind.CURRICULUM), tuple(0.4 * (1 - math.exp(-10 * t)) for t in SHARES)),
]
FIELDS = {"start_rate": st.floats(0, 0.99), "fraction": st.floats(0.01, 1), "gamma": st.floats(0.1, 1000)}
schedules = st.sampled_from(ScheduleKind).flatmap(lambda kind: st.builds(
    Schedule, kind=st.just(kind), **{name: values for name, values in FIELDS.items() if kind in Schedule.USED_BY[name]},
))


@pytest.mark.parametrize(("schedule", "rates"), CURVES)
def test_a_curve_goes_through_the_points_of_its_formula(schedule: Schedule, rates: tuple[float, ...]) -> None:
    assert [rate_at(0.4, schedule, t) for t in SHARES] == pytest.approx(rates, abs=1e-12)


@pytest.mark.parametrize(("schedule", "rates"), CURVES)
def test_an_applied_plan_sets_and_reads_back_the_rate_of_the_hour(schedule: Schedule, rates: tuple[float, ...]) -> None:
    model = nn.Sequential(nn.Dropout(0.1), nn.Linear(2, 2), nn.LSTM(2, 2, num_layers=2))
    rules = [
        DropoutRule(match="0", rate=0.4, schedule=schedule), DropoutRule(match="2", rate=0.4, schedule=schedule),
        DropoutRule(match="1", action="Insert", kind="Standard", rate=0.4, schedule=schedule),
        DropoutRule(match="1", action="Wrap", kind="DropConnect", rate=0.4, schedule=schedule),
    ]
    applied = apply_plan(make_plan(model, DropoutSpec(layers=rules), fast=True), model)
    for t, rate in zip(SHARES, rates, strict=True):
        applied.at(t)
        applied.check()
        found = [model[0].p, model[1].drop_connect, model[1].plan_dropout.p, model[2].dropout]
        assert found == pytest.approx([rate] * 4, abs=1e-12)


@given(schedule=schedules, rate=st.floats(0, 0.99), t=st.floats(0, 1))
def test_no_rate_leaves_its_range_or_passes_its_peak(schedule: Schedule, rate: float, t: float) -> None:
    assert 0 <= rate_at(rate, schedule, t) <= peak(rate, schedule) < 1


def test_a_plan_without_a_schedule_touches_nothing() -> None:
    model = nn.Sequential(nn.Dropout(0.1))
    applied = apply_plan(make_plan(model, DropoutSpec(rate=0.3), fast=False), model)
    model[0].p = 0.2
    applied.at(0.5)
    assert model[0].p == 0.2


def test_dropout_that_is_off_by_its_schedule_is_not_missed() -> None:
    model = nn.Sequential(nn.Dropout(0.1))
    rule = DropoutRule(rate=0.3, schedule=Schedule(kind=ScheduleKind.LATE))
    plan = make_plan(model, DropoutSpec(layers=[rule]), fast=False)
    with drawing() as draws:
        pass
    require_active(plan, draws, 0.4)
    with pytest.raises(StageFailure, match="drew no random number"):
        require_active(plan, draws, 0.5)


def test_a_schedule_is_told_in_words() -> None:
    told = [described(0.4, schedule) for schedule, _ in CURVES]
    assert told == [
        "Constant", "Linear 0 → 0.4 until 50 %", "Linear 0.8 → 0.4 until 100 %", "Early until 50 %", "Early until 20 %", "Late from 50 %",
        "Curriculum gamma 10",
    ]
