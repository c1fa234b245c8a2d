"""Quality of the reloaded program on the held-out set, computed here and never taken from the training pod's word."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from dropout_api.candidate import Task
from dropout_api.metrics import MetricName, QualityBar
from dropout_api.verdict import CheckResult
from dropout_trainer.gate.baseline import Baseline
from dropout_trainer.gate.candidate import Heldout
from dropout_trainer.gate.inputs import Call
from dropout_trainer.gate.target import Target
from dropout_trainer.gate.verdict import RefusedError, failed, passed
from dropout_trainer.metrics.measure import measure as measured
from dropout_trainer.metrics.measure import measure_class, not_of_task, usual

BATCH = 64
SLACK = 1e-6
"""Share of a bound by which a value may miss it: what float32 leaves of areas and means, and of the difference of two metrics."""
MAX_LISTED, MAX_NAME = 12, 40
TRAIN_BETTER = "train a better model, or change spec.gate if the bar was wrong"
CORRECT_BAR = "correct the bar in spec.gate; a job with spec.from then verifies this candidate again"
DIVERGED = "find out where training diverged; lower the learning rate"


def answers(target: Target, heldout: Heldout) -> Tensor:
    """What the program answers to the held-out rows, [N, outputs]. Raises RefusedError when it is another shape."""
    return torch.cat([target.run(Call((batch,)))["output"] for batch in torch.split(heldout.input, BATCH)])


@dataclass(frozen=True)
class Exam:
    """A candidate's answers to its held-out rows, and what they are held against."""

    task: Task
    heldout: Heldout
    answers: Tensor
    """[N, outputs]."""
    bars: Sequence[QualityBar] = ()
    baselines: Mapping[str, Baseline] = field(default_factory=dict)
    """By the alias that bars name."""
    _others: dict[str, Tensor] = field(default_factory=dict, init=False)

    @cached_property
    def metrics(self) -> dict[str, float]:
        """`test_NAME` of the usual metrics and of those that bars name, over all rows and classes. What a bar asks of one class or
        segment, or against a baseline, is told in the check's evidence alone. Only the usual ones may be infinite or NaN."""
        names = usual(self.task)
        found = measured(self.task, names, self.answers, self.heldout.target)
        if all(map(math.isfinite, found.values())):
            more = {bar.metric for bar in self.bars if not not_of_task(self.task, [bar.metric])} - set(names)
            others = measured(self.task, sorted(more), self.answers, self.heldout.target)
            found |= {name: value for name, value in others.items() if math.isfinite(value)}
        return {f"test_{name}": value for name, value in found.items()}

    def others(self, baseline: Baseline) -> Tensor:
        """What the baseline answers to the same rows, computed once. Raises RefusedError when it cannot be compared with."""
        if baseline.uri not in self._others:
            self._others[baseline.uri] = answers(baseline.predictor(self.task.outputs), self.heldout)
        return self._others[baseline.uri]


def quality(exam: Exam) -> CheckResult:
    """The usual metrics are finite, and every bar is met. Says of each bar what was measured; those that are missed come first."""
    text = ", ".join(f"{name} {value:.4g}" for name, value in exam.metrics.items())
    for name, value in exam.metrics.items():
        if not math.isfinite(value):
            return failed("quality", f"{name} is {value}", DIVERGED)
    met: list[str] = []
    missed: list[RefusedError] = []
    for number, bar in enumerate(exam.bars):
        try:
            met.append(_judge(exam, bar, f"spec.gate[{number}]"))
        except RefusedError as error:
            missed.append(error)
    if missed:
        return failed("quality", "; ".join([*(error.evidence for error in missed), *met]), missed[0].remedy)
    return passed("quality", "; ".join([f"{text}; {len(exam.bars)} bars", *met]))


def _judge(exam: Exam, bar: QualityBar, where: str) -> str:
    """How the bar is met. Raises RefusedError when it is missed, or asks for what cannot be measured."""
    if problem := not_of_task(exam.task, [bar.metric]):
        raise RefusedError(f"{where}.metric: {problem}", CORRECT_BAR)
    value, label = _value(exam, bar, exam.answers, where), _label(bar)
    if bar.baseline is None:
        return _bounded(bar, value, f"{label} {value:.4g} is", where)
    baseline = exam.baselines.get(bar.baseline, Baseline.unknown(bar.baseline))
    if baseline.skipped:
        return f"{label} {value:.4g}, {where} is not asked: {baseline.skipped}"
    try:
        theirs = _value(exam, bar, exam.others(baseline), where)
    except RefusedError as error:
        raise RefusedError(f"{where}.baseline: {error.evidence}", error.remedy) from None
    told = f"{label} {value:.4g} less {theirs:.4g} of {baseline.uri} ({bar.baseline}) is {value - theirs:.4g},"
    return _bounded(bar, value - theirs, told, where)


def _bounded(bar: QualityBar, value: float, told: str, where: str) -> str:
    """Raises RefusedError when the value is out of the bar's bounds."""
    if bar.min is not None and value < bar.min - SLACK * abs(bar.min):
        raise RefusedError(f"{told} below min {bar.min:.4g} of {where}", TRAIN_BETTER)
    if bar.max is not None and value > bar.max + SLACK * abs(bar.max):
        raise RefusedError(f"{told} above max {bar.max:.4g} of {where}", TRAIN_BETTER)
    return f"{told} within {where}"


def _value(exam: Exam, bar: QualityBar, answered: Tensor, where: str) -> float:
    """The bar's metric, of its class and its segment's rows. Raises RefusedError when there is no such class, row or value."""
    targets = exam.heldout.target
    if bar.segment is not None:
        rows = _rows(exam, bar.segment, where)
        answered, targets = answered[rows], targets[rows]
    if bar.class_name is None:
        value = measured(exam.task, [bar.metric], answered, targets)[bar.metric]
    else:
        value = measure_class(exam.task, bar.metric, _class(exam.task, bar.class_name, where), answered, targets)
    if math.isfinite(value):
        return value
    needs = {MetricName.R2: "two rows"}.get(bar.metric, f"rows of {'that class and of others' if bar.class_name else 'two classes'}")
    remedy = f"hold out more data, or drop the bar; {bar.metric} needs {needs}"
    raise RefusedError(f"{where}: {_label(bar)} is not defined on the {len(targets)} held-out rows", remedy)


def _rows(exam: Exam, name: str, where: str) -> Tensor:
    """Numbers of the segment's rows."""
    names = exam.task.segment_names
    if exam.heldout.segment is None:
        remedy = "name a segment column in spec.data.args, or drop the segment from the bar"
        raise RefusedError(f"{where}.segment: the data have no segments", remedy)
    if name not in names:
        raise RefusedError(f"{where}.segment: there is no segment {name[:MAX_NAME]!r}; there are {_listed(names)}", CORRECT_BAR)
    numbers = torch.tensor([number for number, known in enumerate(names) if known == name])
    rows = torch.isin(exam.heldout.segment, numbers).nonzero().flatten()
    if not len(rows):
        raise RefusedError(f"{where}.segment: no held-out row is of {name[:MAX_NAME]!r}", "hold out more data, or drop the bar")
    return rows


def _class(task: Task, name: str, where: str) -> int:
    """By name, else by number."""
    if name in task.class_names:
        return task.class_names.index(name)
    if name.isascii() and name.isdecimal() and int(name) < task.outputs:
        return int(name)
    known = _listed(task.class_names) if task.class_names else f"the numbers 0 to {task.outputs - 1}"
    raise RefusedError(f"{where}.class: there is no class {name[:MAX_NAME]!r}; there are {known}", CORRECT_BAR)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return ", ".join(repr(name[:MAX_NAME]) for name in names[:MAX_LISTED]) + more


def _label(bar: QualityBar) -> str:
    of_class = f" of class {bar.class_name[:MAX_NAME]!r}" if bar.class_name is not None else ""
    in_segment = f" in segment {bar.segment[:MAX_NAME]!r}" if bar.segment is not None else ""
    return f"test_{bar.metric}{of_class}{in_segment}"
