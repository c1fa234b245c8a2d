"""What the gate costs: seconds for a convolutional network of ten million parameters and a small transformer, and how its
memory grows with the weights. Each judgement runs in a process of its own, on a candidate as a training pod leaves it."""

import json
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from operator_load import Figure

SECONDS = 15.0
GROWTH = 3.5
NETWORKS = ("cnn-10m", "cnn-100m", "transformer")
ROWS = 64


def figures() -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="gate-cost-") as folder:
        judged = {name: _judged(Path(folder) / name, name) for name in NETWORKS}
    small, large = judged["cnn-10m"], judged["cnn-100m"]
    growth = (large["peak"] - small["peak"]) / (large["weights"] - small["weights"])
    seconds = [Figure(f"gate: {name}", f"{judged[name]['seconds']:.1f} s", f"< {SECONDS:.0f} s", judged[name]["seconds"] < SECONDS)
               for name in ("cnn-10m", "transformer")]
    memory = Figure("gate: memory, 10 M to 100 M parameters", f"{growth:.2f} x the added weights", f"<= {GROWTH} x", growth <= GROWTH)
    return [*seconds, memory]


def _judged(folder: Path, name: str) -> dict[str, float]:
    for step in ("make", "judge"):
        done = subprocess.run([sys.executable, __file__, step, name, str(folder)], stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _network(name: str) -> tuple[Any, Any]:
    """A module and example rows. torch is imported by the processes that judge alone."""
    import torch
    from torch import nn

    if name == "transformer":
        layer = nn.TransformerEncoderLayer(128, 4, 256, dropout=0.1, batch_first=True)
        network = nn.Sequential(nn.Embedding(1000, 128), nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Flatten(),
                                nn.Linear(128 * 32, 10))
        return network, torch.randint(0, 1000, (ROWS, 32))
    width = 590 if name == "cnn-10m" else 1910
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(4)]
    channels = (64, width, width, width, width)
    for before, after in pairwise(channels):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout2d(0.1)]
    layers = [layer for number, layer in enumerate(layers) if not (isinstance(layer, nn.MaxPool2d) and number > 14)]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.3), nn.Linear(width, 512), nn.ReLU(), nn.Linear(512, 10)]
    network = nn.Sequential(*layers, *head)
    return network, torch.randn(ROWS, 3, 32, 32)


def make(name: str, folder: Path) -> None:
    import torch

    from dropout_api.candidate import CandidateConfig, Task
    from dropout_api.spec import ExportSpec
    from dropout_trainer.data import Split
    from dropout_trainer.gate.gate import attest
    from dropout_trainer.gate.inputs import Call, Inputs
    from dropout_trainer.train.candidate import write_candidate
    from dropout_trainer.train.export import eval_copy

    torch.manual_seed(0)
    network, inputs = _network(name)
    copy = eval_copy(network)
    folder.mkdir()
    config = CandidateConfig(
        seed=0, seeds={}, plan=[], task=Task(outputs=10), input_shape=list(inputs.shape[1:]),
        input_dtype="float32" if inputs.is_floating_point() else "int64", versions={"torch": torch.__version__}, data_sha256="0" * 64,
        model_factory="bench:network", attested=attest(copy, Inputs(Call((inputs[:16],)))),
    )
    write_candidate(folder, copy, Split(inputs, torch.arange(ROWS) % 10), config, ExportSpec())


def judge(name: str, folder: Path) -> None:
    import resource

    from dropout_api.candidate import WEIGHTS
    from dropout_trainer.gate import gate

    started = time.perf_counter()
    report = gate.inspect(folder).report
    seconds = time.perf_counter() - started
    assert report.passed, report.message
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": seconds, "peak": peak, "weights": (folder / WEIGHTS).stat().st_size}))


if __name__ == "__main__":
    {"make": make, "judge": judge}[sys.argv[1]](sys.argv[2], Path(sys.argv[3]))
