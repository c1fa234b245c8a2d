from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - as everybody calls it
from torch import Tensor, nn

from dropout_api.names import ExitCode
from dropout_api.verdict import Outcome
from dropout_trainer.errors import StageFailure
from dropout_trainer.gate.formats import onnx_file, onnx_run
from dropout_trainer.gate.formats.onnx_scan import scan
from dropout_trainer.train.onnx_export import export_onnx


class Reshaped(nn.Module):
    """[N, 8] in another shape through `body`, then its mean through a linear layer."""

    def __init__(self, shape: tuple[int, ...], body: nn.Module, over: tuple[int, ...]) -> None:
        super().__init__()
        self.shape, self.body, self.over = shape, body, over
        self.last = nn.LazyLinear(3)

    def forward(self, x: Tensor) -> Tensor:
        output = self.body(x.reshape(-1, *self.shape))
        return self.last((output[0] if isinstance(output, tuple) else output).mean(self.over))


class SelfAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, dropout=0.2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=False)[0]


class Embedded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.drop, self.last = nn.Embedding(20, 8), nn.Dropout(0.1), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.gelu(self.drop(self.embedding(x).mean(1))))


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.drop = nn.Linear(8, 3), nn.Embedding(20, 3), nn.Dropout(0.5)

    def forward(self, x: Tensor, token: Tensor) -> tuple[Tensor, Tensor]:
        return self.drop(self.left(x)) + self.right(token), x.sum(1)


def floats(rows: int) -> tuple[Tensor, ...]:
    return (torch.randn(rows, 8),)


def integers(rows: int) -> tuple[Tensor, ...]:
    return (torch.randint(0, 20, (rows, 8)),)


def both(rows: int) -> tuple[Tensor, ...]:
    return torch.randn(rows, 8), torch.randint(0, 20, (rows,))


def cnn() -> nn.Module:
    return Reshaped((1, 2, 4), nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout2d(0.2)), (2, 3))


def encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(4, 2, 16, dropout=0.2, batch_first=True)
    return Reshaped((2, 4), nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), (1,))


SOUND: dict[str, tuple[Callable[[], nn.Module], Callable[[int], tuple[Tensor, ...]]]] = {
    "mlp": (lambda: nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 3)), floats),
    "cnn with batch norm": (cnn, floats),
    "transformer encoder": (encoder, floats),
    "lstm": (lambda: Reshaped((4, 2), nn.LSTM(2, 8, num_layers=2, dropout=0.3, batch_first=True), (1,)), floats),
    "self-attention": (lambda: Reshaped((2, 4), SelfAttention(), (1,)), floats),
    "embedding of integers": (Embedded, integers),
    "two inputs and two outputs": (TwoInputs, both),
}


@pytest.mark.parametrize("name", SOUND)
def test_as_does(name: str, tmp_path: Path) -> None:
    build, rows = SOUND[name]
    network = build()
    network(*rows(8))  # in training mode, so that running statistics move
    path = tmp_path / "model.onnx"
    export_onnx(network, rows(4), path)
    assert network.training

    result = scan(onnx_file.load(path).model)
    session = onnx_run.Session(path)

    assert result.outcome is Outcome.PASSED, result.evidence
    assert [(spec.dtype, *spec.shape) for spec in session.inputs] == [(tensor.dtype, "batch", *tensor.shape[1:]) for tensor in rows(1)]
    network.eval()
    for batch in (1, 2, 37):
        inputs = rows(batch)
        eager = network(*inputs)
        expected = list(eager) if isinstance(eager, tuple) else [eager]
        torch.testing.assert_close(session.run(inputs), [tensor.detach() for tensor in expected], atol=1e-5, rtol=1e-4)


def test_twice_in_the_same_bytes_and_without_a_word(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    network = cnn()
    network(*floats(2))
    for name in ("a.onnx", "b.onnx"):
        export_onnx(network, floats(4), tmp_path / name)

    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    assert capfd.readouterr() == ("", "")


class NoFormInOnnx(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.eigvals(x.reshape(-1, 2, 4) @ x.reshape(-1, 4, 2)).real


class ByValue(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


@pytest.mark.parametrize(("network", "words"), [(NoFormInOnnx(), "linalg_eig"), (ByValue(), "data-dependent")])
def test_and_what_cannot_be_exported_ends_in_one_line(
        network: nn.Module, words: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(StageFailure, match=words) as failure:
        export_onnx(network, floats(4), tmp_path / "model.onnx")

    assert "\n" not in failure.value.message
    assert failure.value.exit_code is ExitCode.EXPORT_FAILED
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")
