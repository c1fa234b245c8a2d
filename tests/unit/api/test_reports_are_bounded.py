"""Reading what a pod said: a report or nothing, never an error, for any bytes at all."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dropout_api.report import MAX_REPORT_BYTES, ProgressSample, StageError, TrainReport, VerifyReport, parse

KINDS = (TrainReport, VerifyReport, ProgressSample, StageError)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["stage", "verdict", "metrics", "epoch", "x"]), inner, max_size=4),
    max_leaves=10,
)


@given(st.binary(max_size=200) | st.text(max_size=200) | json_values.map(json.dumps))
def test_any_text_is_read_without_an_error(text: str | bytes) -> None:
    for kind in KINDS:
        assert parse(kind, text) is None or isinstance(parse(kind, text), kind)


def test_what_is_too_large_is_not_parsed() -> None:
    text = json.dumps({"stage": "train", "reason": "Trained", "padding": "x" * 16 * MAX_REPORT_BYTES})

    assert parse(TrainReport, text) is None


def test_a_deep_nest_is_not_parsed() -> None:
    assert parse(TrainReport, "[" * 60_000) is None


@pytest.mark.parametrize("name", ["A", "1a", "a b", "a" * 65, "a/b", ""])
def test_a_metric_has_a_plain_name(name: str) -> None:
    assert parse(TrainReport, json.dumps({"reason": "Trained", "metrics": {name: 1.0}})) is None


def test_a_stage_may_not_be_another() -> None:
    assert parse(VerifyReport, json.dumps({"stage": "train", "verdict": "Passed"})) is None
    assert parse(TrainReport, json.dumps({"stage": "verify", "reason": "Trained"})) is None
