"""A bar is judged on the rows and classes that it names, and one that names what is not there fails and says what is."""

from dataclasses import replace

import pytest
import torch
from dropout_testing import zoo

from dropout_api.candidate import Task
from dropout_api.metrics import QualityBar
from dropout_api.verdict import CheckResult, Outcome
from dropout_trainer.gate.candidate import Heldout
from dropout_trainer.gate.quality import Exam, quality

TASK = Task(outputs=3, class_names=["cat", "dog", "2"], segment_names=["north", "south", "east"])
TARGETS = torch.tensor([0] * 8 + [1] * 8 + [0] * 4)
SEGMENTS = torch.tensor([0, 1] * 10)
GUESSES = torch.tensor([0] * 8 + [0] * 2 + [1] * 6 + [0] * 4)
"""Two of the eight dogs, one in each segment, are taken for cats. No row is of class "2", none lies in the east."""


def judged(*bars: dict[str, object], task: Task = TASK, segment: torch.Tensor | None = SEGMENTS) -> CheckResult:
    answers = torch.nn.functional.one_hot(GUESSES, 3).float()
    heldout = Heldout(torch.zeros(20, 1), answers, TARGETS, segment)
    return quality(Exam(task, heldout, answers, [QualityBar.model_validate(bar) for bar in bars]))


@pytest.mark.parametrize(("bar", "value"), [
    ({"metric": "recall_macro", "class": "dog"}, 0.75),
    ({"metric": "recall_macro", "class": "1"}, 0.75),
    ({"metric": "false_negative_rate_macro", "class": "cat"}, 0.0),
    ({"metric": "precision_macro", "class": "cat"}, 12 / 14),
    ({"metric": "accuracy", "segment": "north"}, 0.9),
    ({"metric": "recall_macro", "class": "dog", "segment": "south"}, 0.75),
    ({"metric": "recall_macro", "segment": "south"}, 0.875),
])
def test_by_name_or_number(bar: dict[str, object], value: float) -> None:
    above, below = judged(bar | {"min": value + 1e-4}), judged(bar | {"max": value - 1e-4})
    within = judged(bar | {"min": value, "max": value})

    assert (above.outcome, below.outcome, within.outcome) == (Outcome.FAILED, Outcome.FAILED, Outcome.PASSED)
    assert "below min" in above.evidence
    assert "above max" in below.evidence
    for word in ("class", "segment"):
        assert (f"{word} {bar.get(word)!r}" in within.evidence) == (word in bar)


@pytest.mark.parametrize(("bar", "words"), [
    ({"metric": "recall_macro", "class": "cow"}, "spec.gate[0].class: there is no class 'cow'; there are 'cat', 'dog', '2'"),
    ({"metric": "recall_macro", "class": "3"}, "there is no class '3'"),
    ({"metric": "recall_macro", "class": "-1"}, "there is no class '-1'"),
    ({"metric": "recall_macro", "class": "2"}, "spec.gate[0]: test_recall_macro of class '2' is not defined on the 20 held-out rows"),
    ({"metric": "accuracy", "segment": "west"}, "spec.gate[0].segment: there is no segment 'west'; there are 'north', 'south', 'east'"),
    ({"metric": "accuracy", "segment": "east"}, "no held-out row is of 'east'"),
    ({"metric": "mae"}, "spec.gate[0].metric: mae does not go with Classification; use one of loss, accuracy"),
    ({"metric": "top_5_accuracy"}, "needs 5 classes, but there are 3"),
    ({"metric": "accuracy", "baseline": "champion"}, "spec.gate[0].baseline: there is no registry here in which to look for champion"),
])
def test_and_what_is_not_there_fails_with_what_is(bar: dict[str, object], words: str) -> None:
    result = judged(bar | {"min": 0})

    assert result.outcome is Outcome.FAILED
    assert words in result.evidence
    assert result.remedy


def test_a_class_without_names_goes_by_its_number() -> None:
    task = Task(outputs=3)
    assert judged({"metric": "recall_macro", "class": "1", "min": 0.75}, task=task, segment=None).outcome is Outcome.PASSED
    assert "there are the numbers 0 to 2" in judged({"metric": "recall_macro", "class": "dog", "min": 0}, task=task, segment=None).evidence


def test_data_without_segments_meet_no_bar_on_one() -> None:
    result = judged({"metric": "accuracy", "segment": "north", "min": 0}, task=Task(outputs=3), segment=None)
    assert "the data have no segments" in result.evidence


def test_one_class_in_a_segment_has_recall_and_no_area() -> None:
    only_cats = torch.tensor([0] * 8 + [1] * 12)
    recall = judged({"metric": "recall_macro", "segment": "north", "min": 1.0}, segment=only_cats)
    area = judged({"metric": "roc_auc_macro", "segment": "north", "min": 0.0}, segment=only_cats)

    assert recall.outcome is Outcome.PASSED
    assert "test_roc_auc_macro in segment 'north' is not defined on the 8 held-out rows" in area.evidence
    assert area.remedy == "hold out more data, or drop the bar; roc_auc_macro needs rows of two classes"


def test_every_bar_that_is_missed_is_told_first() -> None:
    result = judged({"metric": "accuracy", "min": 0.5}, {"metric": "f1_macro", "min": 0.99}, {"metric": "loss", "max": 0.1})

    told = result.evidence.split("; ")
    assert [part.rpartition(" ")[2] for part in told] == ["spec.gate[1]", "spec.gate[2]", "spec.gate[0]"]


def test_a_name_that_is_hostile_or_endless_stays_short() -> None:
    task = TASK.model_copy(update={"class_names": ["x" * 10_000] * 3, "segment_names": [f"{number}" * 500 for number in range(9)] * 9})
    result = judged(*[{"metric": "recall_macro", "class": "c" * 200, "min": 0}] * 16, task=task)

    assert len(result.evidence) <= 1500


def test_a_report_holds_the_usual_metrics_and_those_that_bars_name() -> None:
    network = zoo.SOUND["mlp"].build()
    heldout = replace(zoo.heldout_of(network), segment=torch.zeros(40).long())
    bars = [QualityBar(metric="recall_macro", class_name="0", min=0), QualityBar(metric="mae", max=1), QualityBar(metric="f1_micro", min=0)]

    exam = Exam(Task(outputs=zoo.CLASSES, segment_names=["all"]), heldout, heldout.output, bars)

    assert set(exam.metrics) == {"test_loss", "test_accuracy", "test_recall_macro", "test_f1_micro"}
