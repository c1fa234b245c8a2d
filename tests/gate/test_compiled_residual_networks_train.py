"""A residual network with a stride trains through torch.compile to its end; half a minute, most of it in the C++ compiler."""

import shutil
import subprocess
import sys

import pytest

PROGRAM = """
import torch
from torch.nn import functional as F
from dropout_api.builtins.models import ResnetArguments
from dropout_trainer.models.interface import Interface
from dropout_trainer.models.resnet import resnet
from dropout_trainer.train.loop import compiled

torch.manual_seed(0)
torch.set_num_threads(1)
model = resnet(ResnetArguments(width=4, blocks=[1, 1], stochastic_depth=0), Interface((1, 8, 8), 10))
forward, optimizer = compiled(model), torch.optim.AdamW(model.parameters())
for _ in range(12):
    F.cross_entropy(forward(torch.randn(256, 1, 8, 8)), torch.randint(10, (256,))).backward()
    optimizer.step()
    optimizer.zero_grad()
"""


@pytest.mark.timeout(600)
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_the_process_ends_with_0() -> None:
    """Of its own, because what went wrong was its heap."""
    assert subprocess.run([sys.executable, "-c", PROGRAM], check=False, timeout=570).returncode == 0
