"""Attempts of one job's training, each a process of its own that may be killed, as a program: what it is told comes as JSON.

The stage is the real one, from the task to the candidate's files; MLflow is a file. The process that is told imports torch once and
forks the attempts.
"""

import hashlib
import json
import logging
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dropout_api.names import Tag
from dropout_api.task import TrainTask
from dropout_trainer.data import Data, Split
from dropout_trainer.train import run
from dropout_trainer.train.checkpoints.folder import LocalFolder
from dropout_trainer.train.checkpoints.saver import Saver
from dropout_trainer.train.precision import Step
from dropout_trainer.train.telemetry import Telemetry

RUN = "a" * 32


@dataclass(frozen=True)
class Asked:
    spec: dict[str, Any]
    out: str
    """Folder for what was recorded."""
    checkpoints: str | None = None
    kills: list[int] = field(default_factory=list)
    """Optimiser steps after which the first attempts are killed; the last one is not."""
    cuts: list[int] = field(default_factory=list)
    """As `kills`, but files of checkpoints that are renamed or removed before it is killed."""


@dataclass(frozen=True)
class Outcome:
    curve: dict[tuple[str, int], float]
    """By metric and step."""
    repeated: int
    """Points that more than one attempt has told."""
    files: dict[str, str]
    """SHA-256 of the candidate's files."""
    log: str
    statuses: list[int]
    """Of each attempt: 0, or the signal that ended it as a negative number."""


def outcome(asked: Asked) -> Outcome:
    """Raises AssertionError when two attempts have told another value of one point."""
    Path(asked.out).mkdir()
    done = subprocess.run([sys.executable, "-m", __name__, json.dumps(asdict(asked))], capture_output=True, text=True, check=False)
    statuses = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else []
    assert statuses[-1:] == [0], done.stderr[-3000:]
    curve, repeated = dict[tuple[str, int], float](), 0
    for line in (Path(asked.out) / "points").read_text().splitlines():
        step, values = json.loads(line)
        for key, value in values.items():
            if key.endswith("epoch_seconds"):
                continue
            if (key, step) in curve:
                assert curve[key, step] == value, (key, step)
                repeated += 1
            curve[key, step] = value
    files = json.loads((Path(asked.out) / "files").read_text())
    return Outcome(curve, repeated, files, done.stderr, statuses)


class Record:
    """What a run is told, as lines of a file that survive the process."""

    healthy = True

    def __init__(self, out: Path) -> None:
        self._out = out

    def start(self) -> None: ...
    def params(self, values: object) -> None: ...
    def tag(self, name: Tag, value: str) -> None: ...
    def text(self, name: str, content: str) -> None: ...
    def table(self, name: str, columns: object, rows: object) -> None: ...
    def take_up(self, unsent: object) -> None: ...

    def unsent(self) -> Callable[[], list[Any]]:
        return list

    def drain(self, seconds: float) -> int:
        return 0

    def metrics(self, values: dict[str, float], step: int) -> None:
        with (self._out / "points").open("a") as file:
            file.write(json.dumps([step, values]) + "\n")

    def upload(self, files: list[Path], seconds: float, folder: str = "candidate") -> None:
        digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files if path.name != "manifest.json"}
        (self._out / "files").write_text(json.dumps(digests))


class Restless(nn.Module):
    """Draws from python's and numpy's generators, and has a buffer that moves and is not in the state dict."""

    moved: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("moved", torch.zeros(()), persistent=False)

    def forward(self, inputs: Tensor) -> Tensor:
        if not self.training:
            return inputs
        self.moved.mul_(0.9).add_(inputs.detach().mean() * 0.1)
        return inputs + 0.01 * random.random() + 0.01 * float(np.random.standard_normal()) + 0.1 * self.moved


def network(input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    size = input_shape[0] * input_shape[1] * input_shape[2]
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.2), Restless(), nn.Flatten(),
                         nn.Linear(4 * size, 12), nn.ReLU(), nn.Dropout(0.4), nn.Linear(12, num_outputs))


def data(seed: int, rows: int = 240, side: int = 5) -> Data:
    """Noisy pictures of three kinds, [1, side, side]."""
    source = torch.Generator().manual_seed(seed)
    centres = torch.randn(3, 1, side, side, generator=source)
    targets = torch.randint(3, (rows,), generator=source)
    inputs = centres[targets] + 2 * torch.randn(rows, 1, side, side, generator=source)
    cuts = [rows // 2, rows // 4, rows // 4]
    parts = zip(torch.split(inputs, cuts), torch.split(targets, cuts), strict=True)
    return Data(*(Split(*part) for part in parts), class_names=("a", "b", "c"))


def _main(asked: Asked) -> list[int]:
    statuses = []
    plans = [("steps", count) for count in asked.kills] + [("files", count) for count in asked.cuts] + [("", 0)]
    for number, (what, count) in enumerate(plans, 1):
        child = os.fork()
        if child == 0:
            try:
                _attempt(asked, number, what, count)
            except BaseException:
                logging.exception("attempt %d", number)
                os._exit(1)
            os._exit(0)
        statuses.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        if statuses[-1] == 0:
            break
    return statuses


def _attempt(asked: Asked, number: int, what: str, count: int) -> None:
    Saver.save = _seen_through(Saver.save)  # type: ignore[method-assign]
    if what == "steps":
        Step.update = _deadly(Step.update, count, after=True)  # type: ignore[method-assign]
    elif what == "files":
        Path.rename = LocalFolder.remove = _either(count)  # type: ignore[assignment,method-assign]
    run.attest = lambda *_: []  # seconds of checks that are the gate's to show
    out = Path(asked.out)
    task = TrainTask.model_validate({
        "job": {"cluster": "c", "namespace": "n", "name": "x", "uid": "u"}, "attempt": number, "run": {"id": RUN, "experimentId": "1"},
        "spec": asked.spec, "checkpoints": asked.checkpoints,
    })
    run.train(task, Record(out), Telemetry(number, 1))  # type: ignore[arg-type]


def _seen_through(save: Callable[..., None]) -> Callable[..., None]:
    """Which steps a kill loses must not hang on how busy the machine is."""

    def save_and_wait(saver: Saver, content: Any) -> None:
        save(saver, content)
        saver.wait()

    return save_and_wait


def _deadly(call: Callable[..., Any], count: int, after: bool = False) -> Callable[..., Any]:
    """`call` that kills this process at its `count`-th time."""
    left = [count]

    def deadly(*args: Any) -> Any:
        left[0] -= 1
        if after:
            result = call(*args)
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return result if after else call(*args)

    return deadly


def _either(count: int) -> Any:
    rename, remove = Path.rename, LocalFolder.remove
    return _deadly(lambda self, *args: (rename if isinstance(self, Path) else remove)(self, *args), count)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    print(json.dumps(_main(Asked(**json.loads(sys.argv[1])))))
