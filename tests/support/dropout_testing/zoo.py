"""Networks with a known answer, and the shortest way from one to a candidate."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812 - as everybody calls it
from safetensors.torch import save_file
from torch import Tensor, nn

from dropout_api.candidate import CONFIG, FILES, HELDOUT, MANIFEST, PROGRAM, WEIGHTS, CandidateConfig, FileDigest, LayerMode, Manifest
from dropout_trainer.gate.candidate import Heldout, sha256
from dropout_trainer.gate.program import Subject, load

FEATURES, CLASSES, ROWS = 8, 3, 40


class Net(nn.Module):
    """Linear, some behaviour in between, linear."""

    def __init__(self, between: Callable[[Tensor], Tensor] | None = None, **layers: nn.Module) -> None:
        super().__init__()
        self.first, self.last, self.between = nn.Linear(FEATURES, 16), nn.Linear(16, CLASSES), between
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        return self.last(self.between(hidden) if self.between else self.middle(hidden))


class Attention(nn.Module):
    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        heads = x.reshape(-1, 1, 4, 4)
        return F.scaled_dot_product_attention(heads, heads, heads, dropout_p=self.p).reshape(-1, 16)


class Branches(nn.Module):
    """Dropout in one branch of a torch.cond."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(FEATURES, 16), nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.cond(x.sum() > -1e9, lambda a: F.dropout(a, 0.5), lambda a: a * 2, (self.first(x),))
        return self.last(hidden)


class Sequence(nn.Module):
    """[N, 8] as 4 steps of 2 features through a recurrent layer."""

    def __init__(self, layer: type[nn.RNNBase], dropout: float = 0.3, classes: int = CLASSES) -> None:
        super().__init__()
        self.rnn = layer(2, 16, num_layers=2, dropout=dropout, batch_first=True)
        self.last = nn.Linear(16, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.rnn(x.reshape(-1, 4, 2))[0][:, -1])


class StuckInTraining(nn.Dropout):
    def train(self, mode: bool = True) -> "StuckInTraining":
        return super().train(True)


class HiddenList(nn.Module):
    """Dropout layers in a Python list, which eval() does not reach."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last, self.drops = nn.Linear(FEATURES, 16), nn.Linear(16, CLASSES), [nn.Dropout(0.5)]

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.drops[0](self.first(x)))


class Cnn(nn.Module):
    """[N, 8] as one channel of 2 x 4 pixels, padded to 8 x 8."""

    def __init__(self, norm: nn.Module, drop: nn.Module | None = None, between: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.conv, self.norm, self.drop, self.between = nn.Conv2d(1, 8, 3, padding=1), norm, drop or nn.Dropout2d(0.2), between
        self.dense = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        image = F.pad(x.reshape(-1, 1, 2, 4), (2, 2, 3, 3))
        hidden = F.relu(self.drop(self.norm(self.conv(image))))
        return self.dense((self.between(hidden) if self.between else hidden).mean((2, 3)))


class Encoder(nn.Module):
    """[N, 8] as 4 tokens of 2 features."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(2, 16)
        layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.2, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.last = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.encoder(self.embed(x.reshape(-1, 4, 2))).mean(1))


class SelfAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.last = nn.Linear(2, 16), nn.Linear(16, CLASSES)
        self.mha = nn.MultiheadAttention(16, 2, dropout=0.2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(x.reshape(-1, 4, 2))
        return self.last(self.mha(tokens, tokens, tokens, need_weights=False)[0].mean(1))


class Tokens(nn.Module):
    """Integer inputs [N, 8] in 0..19."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.drop, self.last = nn.Embedding(20, 16), nn.Dropout(0.1), nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.gelu(self.drop(self.embedding(x).mean(1))))


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Dropout2d(0.1))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.block(x))


@dataclass(frozen=True)
class Broken:
    build: Callable[[], nn.Module]
    check: str
    """The first check that must fail."""
    words: str
    """What its evidence must hold: op and layer."""
    mode: str = "eval"


@dataclass(frozen=True)
class Sound:
    build: Callable[[], nn.Module]
    integers: bool = False


def _built_in_forward(x: Tensor) -> Tensor:
    return nn.Dropout(0.5)(x)


BROKEN = {
    "functional dropout that is always on": Broken(
        lambda: Net(lambda x: F.dropout(x, 0.5)), "graph", "aten.dropout (train=True, p=0.5)|'Net'"),
    "dropout2d with training written in": Broken(
        lambda: Cnn(nn.BatchNorm2d(8), between=lambda x: F.dropout2d(x, 0.3, training=True)), "graph",
        "aten.feature_dropout (train=True, p=0.3)|'Cnn'"),
    "alpha dropout that is always on": Broken(
        lambda: Net(lambda x: F.alpha_dropout(x, 0.3, training=True)), "graph", "aten.alpha_dropout (train=True, p=0.3)"),
    "dropout built in forward": Broken(lambda: Net(_built_in_forward), "graph", "aten.dropout (train=True, p=0.5)"),
    "attention with dropout_p": Broken(
        lambda: Net(middle=Attention(0.2)), "graph", "aten.scaled_dot_product_attention (dropout_p=0.2)|'middle'"),
    "mask from rand_like": Broken(lambda: Net(lambda x: x * (torch.rand_like(x) > 0.5)), "graph", "aten.rand_like draws random numbers"),
    "mask from bernoulli": Broken(lambda: Net(lambda x: x * torch.bernoulli(torch.full_like(x, 0.5))), "graph", "aten.bernoulli draws"),
    "gaussian noise": Broken(lambda: Net(lambda x: x + torch.randn_like(x)), "graph", "aten.randn_like draws"),
    "batch norm without running statistics": Broken(
        lambda: Cnn(nn.BatchNorm2d(8, track_running_stats=False)), "graph", "aten.batch_norm (training=True)|'norm'"),
    "exported in training mode": Broken(lambda: Cnn(nn.BatchNorm2d(8)), "graph", "aten.batch_norm (training=True)|'norm'", mode="train"),
    "recurrent dropout in training mode": Broken(
        lambda: Sequence(nn.LSTM), "graph", "aten.lstm (train=True, dropout=0.3)|'rnn'", mode="train"),
    "dropout in a branch of cond": Broken(Branches, "graph", "aten.dropout (train=True, p=0.5)|'Branches'"),
    "rrelu in training mode": Broken(lambda: Net(lambda x: F.rrelu(x, training=True)), "graph", "aten.rrelu (training=True)"),
    "dropout in a python list": Broken(HiddenList, "graph", "aten.dropout (train=True, p=0.5)|'HiddenList'|nn.Dropout"),
    "layer whose train() ignores its mode": Broken(
        lambda: Net(middle=StuckInTraining(0.5)), "graph", "aten.dropout (train=True, p=0.5)|'middle'"),
    "instance norm that updates its statistics": Broken(
        lambda: Cnn(nn.InstanceNorm2d(8, track_running_stats=True)), "graph", "aten.instance_norm (use_input_stats=True)", mode="train"),
    "normalised over the batch by hand": Broken(
        lambda: Net(lambda x: (x - x.mean(0)) / (x.var(0, unbiased=False) + 1e-5).sqrt()), "batch_invariance",
        "a row is answered otherwise alone"),
}

SOUND = {
    "mlp": Sound(lambda: nn.Sequential(nn.Linear(FEATURES, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, CLASSES))),
    "cnn with batch norm": Sound(lambda: Cnn(nn.BatchNorm2d(8))),
    "cnn with group norm": Sound(lambda: Cnn(nn.GroupNorm(2, 8))),
    "cnn with instance norm": Sound(lambda: Cnn(nn.InstanceNorm2d(8))),
    "cnn with instance norm that tracks": Sound(lambda: Cnn(nn.InstanceNorm2d(8, track_running_stats=True))),
    "transformer encoder": Sound(Encoder),
    "lstm": Sound(lambda: Sequence(nn.LSTM)),
    "gru": Sound(lambda: Sequence(nn.GRU)),
    "multi-head attention": Sound(SelfAttention),
    "attention without dropout": Sound(lambda: Net(middle=Attention(0.0))),
    "embedding of integers": Sound(Tokens, integers=True),
    "residual block": Sound(lambda: Cnn(nn.BatchNorm2d(8), drop=Residual())),
    "dropout of rate zero": Sound(lambda: Net(lambda x: F.dropout(x, 0.0))),
    "alpha dropout": Sound(lambda: Net(middle=nn.Sequential(nn.SELU(), nn.AlphaDropout(0.2)))),
    "rrelu": Sound(lambda: Net(middle=nn.RReLU())),
    "in-place relu on the input": Sound(lambda: nn.Sequential(nn.ReLU(inplace=True), nn.Linear(FEATURES, CLASSES))),
}


@dataclass(frozen=True)
class Made:
    """What a training pod would leave, before it is changed by a test."""

    folder: Path
    config: CandidateConfig
    files: tuple[str, ...] = field(default=FILES)


def heldout_of(network: nn.Module, integers: bool = False) -> Heldout:
    generator = torch.Generator().manual_seed(5)
    shape = (ROWS, FEATURES)
    rows = torch.randint(0, 20, shape, generator=generator) if integers else torch.randn(shape, generator=generator)
    was = network.training
    with torch.no_grad():
        output = network.eval()(rows)
    network.train(was)
    return Heldout(rows, output.contiguous(), output.argmax(1))


def config_of(integers: bool = False, left_in_training: list[LayerMode] | None = None) -> CandidateConfig:
    return CandidateConfig(
        seed=42, seeds={"torch": 42}, plan=[], classes=CLASSES, input_shape=[FEATURES], input_dtype="int64" if integers else "float32",
        versions={"torch": torch.__version__}, data_sha256="0" * 64, model_factory="zoo:model", left_in_training=left_in_training or [],
    )


def export(network: nn.Module, rows: Tensor, path: Path) -> None:
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(network, (rows,), dynamic_shapes=({0: torch.export.Dim.AUTO},))
        torch.export.save(program, path)


def candidate(folder: Path, network: nn.Module, mode: str = "eval", integers: bool = False) -> Made:
    """Writes all files of a candidate to `folder`, as the exporter does; `mode` is the network's when it is exported."""
    folder.mkdir(parents=True, exist_ok=True)
    network.train(mode == "train")
    heldout, config = heldout_of(network, integers), config_of(integers)
    export(network, heldout.input[:4], folder / PROGRAM)
    save_file({"input": heldout.input, "output": heldout.output, "target": heldout.target}, folder / HELDOUT)
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, folder / WEIGHTS)
    (folder / CONFIG).write_text(config.to_json())
    seal(folder)
    return Made(folder, config)


def seal(folder: Path) -> None:
    """Writes the manifest of what lies in `folder` now."""
    files = {name: FileDigest(sha256=sha256(folder / name), size=(folder / name).stat().st_size) for name in FILES}
    (folder / MANIFEST).write_text(Manifest(files=files).to_json())


def subject(folder: Path, network: nn.Module, mode: str = "eval", integers: bool = False) -> Subject:
    network.train(mode == "train")
    heldout = heldout_of(network, integers)
    export(network, heldout.input[:4], folder / PROGRAM)
    return Subject(load(folder / PROGRAM), config_of(integers), heldout)
