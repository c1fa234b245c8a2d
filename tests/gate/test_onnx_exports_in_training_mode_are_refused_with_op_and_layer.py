from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - as everybody calls it
from dropout_testing.onnx_exports import export_as_is, export_through_torchscript
from torch import Tensor, nn

from dropout_api.verdict import Outcome
from dropout_trainer.gate.formats import onnx_file, onnx_run
from dropout_trainer.gate.formats.onnx_scan import scan


class Net(nn.Module):
    """Blocks of a linear layer, a norm and a dropout, then some behaviour."""

    def __init__(self, between: Callable[[Tensor], Tensor] = F.relu) -> None:
        super().__init__()
        self.between = between
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Dropout(0.3)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.between(x)


class Choice(nn.Module):
    """Dropout in one branch of a torch.cond."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cond(x.sum() > 0, lambda a: F.dropout(a, 0.5), lambda a: a * 2, (x,))


BROKEN: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "in training mode": (lambda: Net().train(), "onnx.Dropout (training_mode=true, ratio=0.3): dropout is on in layer 'blocks.0.2'"),
    "with functional dropout": (
        lambda: Net(lambda x: F.dropout(x, 0.5)).eval(), "onnx.Dropout (training_mode=true, ratio=0.5): dropout is on in layer 'Net'"),
    "with a mask from rand_like": (
        lambda: Net(lambda x: x * (torch.rand_like(x) > 0.5)).eval(), "onnx.RandomUniformLike draws random numbers in layer 'Net'"),
    "with gaussian noise": (
        lambda: Net(lambda x: x + torch.randn_like(x)).eval(), "onnx.RandomNormalLike draws random numbers in layer 'Net'"),
    "with a mask from bernoulli": (
        lambda: Net(lambda x: x * torch.bernoulli(torch.full_like(x, 0.5))).eval(), "onnx.Bernoulli draws random numbers in layer 'Net'"),
    "with dropout in a branch": (lambda: Choice().eval(), "onnx.Dropout (training_mode=true, ratio=0.5): dropout is on in layer '"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_when_it_was_made(name: str, tmp_path: Path) -> None:
    build, words = BROKEN[name]
    path = export_as_is(build(), (torch.randn(4, 8),), tmp_path / "model.onnx")

    result = scan(onnx_file.load(path).model)

    assert result.outcome is Outcome.FAILED
    assert words in result.evidence
    assert Path(__file__).name in result.evidence  # the line of the user's code
    assert result.remedy


def test_and_so_are_those_of_the_older_exporter(tmp_path: Path) -> None:
    path = export_through_torchscript(Net().train(), (torch.randn(4, 8),), tmp_path / "model.onnx")

    result = scan(onnx_file.load(path).model)

    assert "onnx.BatchNormalization (training_mode=1): it normalises by the batch at hand in layer 'blocks.0.1'" in result.evidence
    assert "(and 3 more such nodes)" in result.evidence


class Attention(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        heads = x.reshape(-1, 2, 2, 2)
        return F.scaled_dot_product_attention(heads, heads, heads, dropout_p=0.5).reshape(-1, 8)


@pytest.mark.parametrize("network", [Attention().eval(), nn.BatchNorm1d(8).train()], ids=["attention dropout", "batch statistics"])
def test_but_what_the_exporter_drops_only_eager_torch_shows(network: nn.Module, tmp_path: Path) -> None:
    """The exporter leaves attention dropout out and takes a norm's running statistics, so the file is clean and the network is not."""
    rows = torch.randn(8, 8) * 3 + 1
    path = export_as_is(network, (rows,), tmp_path / "model.onnx")
    session = onnx_run.Session(path)

    assert scan(onnx_file.load(path).model).outcome is Outcome.PASSED
    assert torch.equal(session.run([rows])[0], session.run([rows])[0])
    assert not torch.allclose(session.run([rows])[0], network(rows).detach(), atol=1e-2)
