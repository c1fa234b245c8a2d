"""Whether the faster dropout learns as torch's own: 100 epochs at each learning rate, under five seeds, with either.

    python benchmarks/dropout_sweep.py [--epochs 100] [--seeds 5]

The two agree when the difference of their mean accuracies over seeds is within two standard errors of it.
"""

import argparse
import math
import statistics
import sys
from collections import deque

from rich.console import Console
from rich.progress import track
from rich.table import Table

from dropout_api.metrics import MetricName
from dropout_api.spec import TrainingJobSpec
from dropout_trainer.train.evaluating import evaluate
from dropout_trainer.train.loop import fit
from dropout_trainer.train.preparing import prepare, training_on

RATES = (0.0003, 0.001, 0.003, 0.01)
IMPLEMENTATIONS = ("Native", "Fast")
ERRORS = 2.0


def accuracy(rate: float, seed: int, implementation: str, epochs: int) -> float:
    """On the digits' test set, 0 to 1."""
    ground = prepare(TrainingJobSpec.model_validate({
        "model": {"factory": "mlp", "args": {"hidden": [256, 256]}}, "data": {"factory": "sklearn", "args": {"name": "digits"}},
        "dropout": {"rate": 0.5, "implementation": implementation}, "seed": seed,
        "training": {"epochs": epochs, "batchSize": 128, "optimizer": {"learningRate": rate}},
    }))
    training = training_on(ground, ground.data, seed)
    deque(fit(training), maxlen=0)
    return evaluate(training.model, ground.data.test, ground.task, [MetricName.ACCURACY]).metrics[MetricName.ACCURACY]


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=5)
    given = parser.parse_args()
    cases = [(rate, seed, name) for rate in RATES for seed in range(given.seeds) for name in IMPLEMENTATIONS]
    found = {case: accuracy(*case, given.epochs) for case in track(cases, "training", console=Console(stderr=True))}
    table = Table("learning rate", *(f"{name}: mean ± deviation" for name in IMPLEMENTATIONS), "difference in standard errors")
    worst = 0.0
    for rate in RATES:
        native, fast = ([found[rate, seed, name] for seed in range(given.seeds)] for name in IMPLEMENTATIONS)
        error = math.sqrt((statistics.variance(native) + statistics.variance(fast)) / given.seeds) or math.inf
        apart = abs(statistics.fmean(native) - statistics.fmean(fast)) / error
        worst = max(worst, apart)
        table.add_row(f"{rate:g}", *(f"{statistics.fmean(of):.4f} ± {statistics.stdev(of):.4f}" for of in (native, fast)), f"{apart:.2f}")
    Console().print(table)
    return 0 if worst <= ERRORS else 1


if __name__ == "__main__":
    sys.exit(main())
