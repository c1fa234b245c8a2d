"""What FastDropout saves: against F.dropout on a tensor of 128×256, and in a training step of a perceptron on rows as the digits have.

Each number of threads is measured in a process of its own. The two take turns, so that what else the machine does meets both alike;
a figure is the ratio of their medians. The step is measured with one thread: with two its small products wait for each other.
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from operator_load import Figure

THREADS = (1, 2)
TURNS = 60
CALLS = 20
"""In a row, before it is the other's turn."""
STEPS = 4
"""The same of training steps."""
FASTER = 2.5
STEP_FASTER = 1.3
STEP = "training step"


def figures() -> list[Figure]:
    return [figure for threads in THREADS for figure in _figures(threads, _measured(threads))]


def _figures(threads: int, found: dict[str, list[float]]) -> list[Figure]:
    result = []
    for name, (native, fast) in found.items():
        bound = STEP_FASTER if name == STEP else FASTER
        value = f"{native / fast:.1f} x  ({native:.0f} µs, {fast:.0f} µs)"
        result.append(Figure(f"fast dropout: {name}, threads: {threads}", value, f">= {bound} x F.dropout", native / fast >= bound))
    return result


def _measured(threads: int) -> dict[str, list[float]]:
    done = subprocess.run([sys.executable, __file__, str(threads)], stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, list[float]] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(threads: int) -> dict[str, list[float]]:
    """Microseconds of torch's and of ours, for each figure."""
    import torch
    from torch import nn
    from torch.nn import functional as F  # noqa: N812 - as everyone writes it

    from dropout_trainer.dropout import FastDropout, fast_dropout

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    inputs, gradient = torch.randn(128, 256), torch.randn(128, 256)
    leaf = inputs.clone().requires_grad_()

    def there_and_back(drop: Callable[..., Any]) -> None:
        leaf.grad = None
        drop(leaf, 0.5, True).backward(gradient)

    def step(kind: type[nn.Dropout]) -> Callable[[], None]:
        model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), kind(0.5), nn.Linear(256, 256), nn.ReLU(), kind(0.5), nn.Linear(256, 10))
        optimizer = torch.optim.AdamW(model.parameters())
        rows, targets = torch.randn(128, 64), torch.randint(0, 10, (128,))

        def run() -> None:
            optimizer.zero_grad()
            F.cross_entropy(model(rows), targets).backward()
            optimizer.step()

        return run

    found = {
        "forward": _turns(CALLS, lambda: F.dropout(inputs, 0.5, True), lambda: fast_dropout(inputs, 0.5, True)),
        "forward and backward": _turns(CALLS, lambda: there_and_back(F.dropout), lambda: there_and_back(fast_dropout)),
    }
    return found | ({STEP: _turns(STEPS, step(nn.Dropout), step(FastDropout))} if threads == 1 else {})


def _turns(calls: int, *runs: Callable[[], object]) -> list[float]:
    """The median time of a call of each, in microseconds."""
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(TURNS):
        for run, taken in zip(runs, times, strict=True):
            started = time.perf_counter()
            for _ in range(calls):
                run()
            taken.append((time.perf_counter() - started) / calls * 1e6)
    return [statistics.median(taken) for taken in times]


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]))))
