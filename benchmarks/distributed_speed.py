"""Two processes of one thread each against one: rows per second of the same training, of a network where computing outweighs talking.

Both are launched as in a pod. The clock is that of rank 0: from the end of the first epoch, in which torch warms up, to the end of the
last; evaluation is in it. Others' work on two cores takes from two processes more than from one, so rounds alternate and the best of each
counts. Beside it, the same by seconds of rank 0's core instead of the clock, which others' work does not touch, and waiting for rank 1
neither.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from operator_load import Figure

from dropout_api.names import Torchrun

LEAST, ROUNDS = 1.5, 3
EPOCHS, ROWS, BATCH, SIDE = 3, 1024, 128, 24
LAUNCHER = """
import sys
from dropout_trainer.train.launch import Layout, launch
sys.exit(launch([sys.executable, sys.argv[1]], Layout(int(sys.argv[2]))))
"""


def figures(rounds: int = ROUNDS) -> list[Figure]:
    tries = [(measured(1), measured(2)) for _ in range(rounds)]
    one, two = ([max(rates) for rates in zip(*some, strict=True)] for some in zip(*tries, strict=True))
    ratio = two[0] / one[0]
    told = f"{ratio:.2f} x ({two[0]:.0f} and {one[0]:.0f} rows/s; by rank 0's core {two[1] / one[1]:.2f} x)"
    return [Figure("training: two processes / one, a thread each", told, f">= {LEAST} x", ratio >= LEAST)]


def measured(processes: int) -> tuple[float, float]:
    """What `train` returns."""
    environ = {name: value for name, value in os.environ.items() if name not in list(Torchrun)} | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", LAUNCHER, str(Path(__file__).resolve()), str(processes)]
    done = subprocess.run(command, env=environ, stdout=subprocess.PIPE, text=True, check=True)
    by_clock, by_core = json.loads(done.stdout.splitlines()[-1])
    return by_clock, by_core


def train() -> list[float]:
    """Rows per second, and rows of all ranks per second of this one's core."""
    import torch
    from torch import nn

    from dropout_api.dropout import DropoutSpec
    from dropout_api.spec import JobSpec
    from dropout_api.training import TrainingSpec
    from dropout_trainer.data import Data, Split
    from dropout_trainer.dropout.plan import apply_plan, make_plan
    from dropout_trainer.train.distributed import World, join
    from dropout_trainer.train.loop import Training, fit
    from dropout_trainer.train.objective import make_objective, make_task
    from dropout_trainer.train.seeds import derive, seed_everything

    torch.set_num_threads(1)
    world = join(World.of(), JobSpec.model_validate({"command": ["-"]}))
    seed_everything(derive(0))
    blocks = [
        layer for before, after in ((3, 32), (32, 64), (64, 64))
        for layer in (nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(), nn.Dropout2d(0.1))
    ]
    model = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))
    data = Data(*(Split(torch.randn(rows, 3, SIDE, SIDE), torch.arange(rows) % 10) for rows in (ROWS, 64, 64)))
    spec = TrainingSpec(epochs=EPOCHS, batch_size=BATCH)
    plan = apply_plan(make_plan(model, DropoutSpec(), fast=True), model)
    objective = make_objective(make_task(data, spec.loss), data, spec.loss)
    training = Training(model, data, objective, plan, spec, derive(0, world.rank), (), world)
    ends = [(time.perf_counter(), time.process_time()) for _ in fit(training)]
    world.leave()
    return [ROWS * (EPOCHS - 1) / (ends[-1][clock] - ends[0][clock]) for clock in (0, 1)]


if __name__ == "__main__":
    rate = train()
    if os.environ.get(Torchrun.RANK) == "0":
        print(json.dumps(rate))
    from dropout_trainer.train.ending import leave

    leave(0)
