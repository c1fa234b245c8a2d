"""What checkpoints cost: a network of ten million parameters under AdamW is trained, and saved to disk after every other epoch.

The writer's thread competes with the training's for cores, so its time counts as if the training stood still meanwhile: seconds of one
core that a checkpoint takes (the copy in memory, packing, digests, writing) against the seconds that an epoch takes when it has all
threads to itself. That bounds the slowdown from above and does not hang on what else the machine does. Beside it, what a clock shows:
epochs that began with a checkpoint against those that did not.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from operator_load import Figure

COST = 0.02
EPOCHS, ROWS, BATCH, WIDTHS = 5, 16_000, 128, (784, 2048, 2048, 2048)


def figures() -> list[Figure]:
    done = subprocess.run([sys.executable, __file__], stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    cost = found["saving"] / found["epoch"]
    value = f"{cost:.2%} ({found['saving']:.2f} s of an epoch's {found['epoch']:.1f} s; loop waits {found['waits'] * 1000:.0f} ms; clock "
    value += f"{found['clock']:+.1%})"
    return [Figure(f"checkpoint: {found['parameters'] / 1e6:.1f} M parameters, every epoch", value, f"<= {COST:.0%}", cost <= COST)]


def measure(folder: Path) -> dict[str, float]:
    import torch

    from dropout_trainer.train.checkpoints.folder import LocalFolder
    from dropout_trainer.train.checkpoints.saver import Saver
    from dropout_trainer.train.checkpoints.schema import Identity
    from dropout_trainer.train.loop import fit

    training = _training()
    spent = Spent()
    saver = _timed(Saver, spent)(LocalFolder(folder), Identity(run="a" * 32, spec="b" * 64, data="c" * 64), _rule())
    epochs: list[tuple[float, float]] = []
    began = (time.perf_counter(), time.process_time())
    for _ in fit(training, between_steps=lambda state: _save(saver, state, spent)):
        now = (time.perf_counter(), time.process_time())
        epochs.append((now[0] - began[0], now[1] - began[1]))
        began = now
    saver.wait()
    quiet, saved = epochs[1::2], epochs[2::2]  # what is saved at an epoch's end is written in the next one; the first warms up
    cpu = statistics.median(epoch[1] for epoch in quiet) / torch.get_num_threads()
    wall = [statistics.median(epoch[0] for epoch in some) for some in (saved, quiet)]
    return {
        "parameters": sum(parameter.numel() for parameter in training.model.parameters()), "epoch": cpu,
        "saving": statistics.median(spent.copying) + statistics.median(spent.writing), "waits": statistics.median(spent.waits),
        "clock": wall[0] / wall[1] - 1,
    }


class Spent:
    """Seconds of each checkpoint: of a core, in the loop's thread and in the writer's; and those that the loop waited."""

    def __init__(self) -> None:
        self.copying: list[float] = []
        self.writing: list[float] = []
        self.waits: list[float] = []


def _save(saver: Any, state: Any, spent: Spent) -> None:
    """After every other epoch."""
    from dropout_trainer.train.checkpoints.saver import Content
    from dropout_trainer.train.checkpoints.schema import Journal

    if state.batch or not state.epoch % 2:
        return
    cpu, wall = time.thread_time(), time.perf_counter()
    saver.save(Content(state.captured(), None, Journal()))
    spent.copying.append(time.thread_time() - cpu)
    spent.waits.append(time.perf_counter() - wall)


def _timed(kind: Any, spent: Spent) -> Any:
    class Timed(kind):  # type: ignore[misc]
        def _try(self, number: int, content: Any) -> None:
            began = time.thread_time()
            super()._try(number, content)
            spent.writing.append(time.thread_time() - began)

    return Timed


def _rule() -> Any:
    from dropout_api.training import Checkpoint

    return Checkpoint(volume_claim="c")


def _training() -> Any:
    import torch
    from torch import nn

    from dropout_api.dropout import DropoutSpec
    from dropout_api.training import TrainingSpec
    from dropout_trainer.data import Data, Split
    from dropout_trainer.dropout.plan import apply_plan, make_plan
    from dropout_trainer.train.loop import Training
    from dropout_trainer.train.objective import make_objective, make_task
    from dropout_trainer.train.seeds import derive, seed_everything

    seeds = derive(0)
    seed_everything(seeds)
    layers: list[nn.Module] = []
    for before, after in pairwise(WIDTHS):
        layers += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(0.2)]
    model = nn.Sequential(*layers, nn.Linear(WIDTHS[-1], 10))
    splits = [Split(torch.randn(rows, WIDTHS[0]), torch.arange(rows) % 10) for rows in (ROWS, 1000, 100)]
    data, spec = Data(*splits), TrainingSpec(epochs=EPOCHS, batch_size=BATCH)
    plan = apply_plan(make_plan(model, DropoutSpec(), fast=True), model)
    return Training(model, data, make_objective(make_task(data, spec.loss), data, spec.loss), plan, spec, seeds)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="checkpoint-cost-") as place:
        print(json.dumps(measure(Path(place))))
