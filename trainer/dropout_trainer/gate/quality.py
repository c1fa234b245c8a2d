"""Quality of the reloaded program on the held-out set, computed here and never taken from the training pod's word."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812 - as everybody calls it

from dropout_api.metrics import QualityBar
from dropout_api.names import Metric
from dropout_api.verdict import CheckResult
from dropout_trainer.gate.candidate import Heldout
from dropout_trainer.gate.inputs import Call
from dropout_trainer.gate.target import Target
from dropout_trainer.gate.verdict import failed, passed

METRICS = {"loss": Metric.TEST_LOSS, "accuracy": Metric.TEST_ACCURACY}
BATCH = 64


def measure(target: Target, heldout: Heldout) -> dict[str, float]:
    """`test_accuracy` in 0..1 and `test_loss`, the mean cross-entropy in nats."""
    answers = [target.run(Call((batch,)))["output"] for batch in torch.split(heldout.input, BATCH)]
    logits, classes = torch.cat(answers).double(), heldout.target
    correct = (logits.argmax(dim=1) == classes).double().mean()
    return {Metric.TEST_ACCURACY.value: float(correct), Metric.TEST_LOSS.value: float(F.cross_entropy(logits, classes))}


def quality(metrics: dict[str, float], bars: Sequence[QualityBar]) -> CheckResult:
    """Every metric is finite and within its bars."""
    text = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
    for name, value in metrics.items():
        if not math.isfinite(value):
            return failed("quality", f"{name} is {value}", "find out where training diverged; lower the learning rate")
    for bar in bars:
        value = metrics[METRICS[bar.metric]]
        for bound, misses, word in ((bar.min, bar.min is not None and value < bar.min, "below min"),
                                    (bar.max, bar.max is not None and value > bar.max, "above max")):
            if misses:
                return failed("quality", f"{METRICS[bar.metric]} {value:.4g} is {word} {bound:.4g} of spec.gate",
                              "train a better model, or change spec.gate if the bar was wrong")
    return passed("quality", f"{text}; {len(bars)} bars")
