"""A training of one or several processes, each of which runs this as a program: the real stage, launched as in a pod. MLflow is a file, and
nothing is exported. A rank may be told to send a signal after one of its steps.
"""

import json
import logging
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from dropout_api.names import Env, Torchrun
from dropout_testing.attempts import RUN, Record
from dropout_trainer.data import Data, Split
from dropout_trainer.train import run
from dropout_trainer.train.ending import run_stage
from dropout_trainer.train.precision import Step

ASKED, POISON = "RANKS_ASKED", 1000.0
LAUNCHER = """
import sys
from dropout_trainer.train.launch import Layout, launch
sys.exit(launch([sys.executable, "-m", sys.argv[1]], Layout(int(sys.argv[2]))))
"""
"""Without torch, as `dropout train` is before it has launched the ranks."""


@dataclass(frozen=True)
class Asked:
    spec: dict[str, Any]
    out: str
    """Folder for what was recorded."""
    checkpoints: str | None = None
    attempt: int = 1
    signals: dict[str, tuple[int, int, bool]] = field(default_factory=dict)
    """By rank: after which step, which signal, and whether the launcher gets it instead of the rank itself."""
    slices: bool = False
    """Gives a whole GPU the name of a MIG slice, so that several ranks share it and talk as slices do."""


@dataclass(frozen=True)
class Outcome:
    code: int
    report: dict[str, Any]
    curve: list[tuple[int, dict[str, float]]]
    """Of all attempts in this folder; without times."""
    weights: bytes
    """The safetensors file; empty before the end."""
    log: str


def outcome(asked: Asked) -> Outcome:
    out = Path(asked.out)
    out.mkdir(exist_ok=True)
    task = {"job": {"cluster": "c", "namespace": "n", "name": "x", "uid": "u"}, "attempt": asked.attempt, "spec": asked.spec,
            "run": {"id": RUN, "experimentId": "1"}, "checkpoints": asked.checkpoints}
    environ = {name: value for name, value in os.environ.items() if name not in list(Torchrun)} | {
        Env.TASK: json.dumps(task), Env.TERMINATION_LOG: str(out / "report"), ASKED: json.dumps(asdict(asked)),
    }
    processes = asked.spec.get("processesPerNode", 1)
    command = [sys.executable, "-m", __name__] if processes == 1 else [sys.executable, "-c", LAUNCHER, __name__, str(processes)]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    lines = (out / "points").read_text().splitlines() if (out / "points").exists() else []
    curve = [(step, {key: value for key, value in values.items() if "seconds" not in key}) for step, values in map(json.loads, lines)]
    report = json.loads((out / "report").read_text()) if (out / "report").exists() else {}
    weights = (out / "weights.safetensors").read_bytes() if (out / "weights.safetensors").exists() else b""
    return Outcome(done.returncode, report, curve, weights, done.stderr)


class Kept(Record):
    """Keeps what is uploaded, too."""

    def upload(self, files: list[Path], seconds: float, folder: str = "candidate") -> None:
        for file in files:
            shutil.copy(file, self._out)


class Watch(nn.Module):
    """Notes which of its first inputs in training are zero, as dropout before it has left them."""

    def __init__(self) -> None:
        super().__init__()
        self.noted = False

    def forward(self, inputs: Tensor) -> Tensor:
        if self.training and not self.noted:
            self.noted = True
            place = Path(json.loads(os.environ[ASKED])["out"]) / f"mask-{os.environ.get(Torchrun.RANK, '0')}"
            place.write_text("".join("0" if value == 0 else "1" for value in inputs.flatten().tolist()))
        return inputs


class Poisoned(nn.Module):
    """Answers NaN to the rows that begin with POISON."""

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.where(inputs[:, :1] == POISON, math.nan, inputs)


def network(input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    return nn.Sequential(Poisoned(), nn.Linear(input_shape[0], 16), nn.Tanh(), nn.Dropout(0.5), Watch(), nn.Linear(16, num_outputs))


def normed(input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    """With statistics of its own, and parameters that no forward uses."""
    model = nn.Sequential(nn.Linear(input_shape[0], 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, num_outputs))
    model[0].register_parameter("spare", nn.Parameter(torch.zeros(3)))
    return model


def data(seed: int, train: int = 101, val: int = 1100, poisoned: int = 0) -> Data:
    """Overlapping clusters, the third of which is rare; [8] features. The first `poisoned` training rows begin with POISON."""
    source = torch.Generator().manual_seed(seed)
    rows = train + val + 20
    centres = torch.randn(3, 8, generator=source)
    targets = torch.multinomial(torch.tensor([0.6, 0.3, 0.1]), rows, replacement=True, generator=source)
    inputs = centres[targets] + torch.randn(rows, 8, generator=source)
    inputs[:poisoned, 0] = POISON
    parts = zip(torch.split(inputs, [train, val, 20]), torch.split(targets, [train, val, 20]), strict=True)
    return Data(*(Split(*part) for part in parts), class_names=("a", "b", "c"))


def _main() -> int:
    asked = Asked(**json.loads(os.environ[ASKED]))
    rank = os.environ.get(Torchrun.RANK, "0")
    if rank in asked.signals:
        Step.update = _signalling(Step.update, *asked.signals[rank])  # type: ignore[method-assign]
    if asked.slices:
        torch.cuda.get_device_name = lambda *_: "a GPU, MIG 1g.10gb"
    run.METRICS_PORT = 0
    run.tracking_of = lambda _: Kept(Path(asked.out))  # type: ignore[assignment,return-value]
    run.rehearse_export = lambda *_: None  # seconds that are not what is claimed
    run._test = lambda *_: {}
    run.write_all = _weights  # type: ignore[assignment]
    return run_stage()


def _weights(folder: Path, model: nn.Module, facts: object) -> list[Path]:
    save_file({name: tensor.clone() for name, tensor in model.state_dict().items()}, folder / "weights.safetensors")
    return [folder / "weights.safetensors"]


def _signalling(update: Callable[[Step], None], step: int, number: int, to_launcher: bool) -> Callable[[Step], None]:
    left = [step]

    def update_then_signal(self: Step) -> None:
        update(self)
        left[0] -= 1
        if left[0] == 0:
            told, tells = socket.socketpair()
            tells.setblocking(False)
            signal.set_wakeup_fd(tells.fileno())
            os.kill(os.getppid() if to_launcher else os.getpid(), number)
            told.recv(1)  # which step it comes in must not hang on how busy the machine is
            signal.set_wakeup_fd(-1)

    return update_then_signal


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    sys.exit(_main())
