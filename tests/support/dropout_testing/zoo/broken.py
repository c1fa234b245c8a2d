"""Networks that are not in eval mode after eval(), or whose dropout is scaled wrongly: one kind of fault each."""

import functools
import random
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - as everybody calls it
from torch import Tensor, nn

from dropout_testing.zoo.entries import Broken, floats, integers

FEATURES, CLASSES = 8, 3
ROW = floats(6, FEATURES)
IMAGE = floats(6, 1, 8, 8)


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


class Cnn(nn.Module):
    def __init__(self, norm: nn.Module, between: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.conv, self.norm, self.between, self.dense = nn.Conv2d(1, 8, 3, padding=1), norm, between, nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu(self.norm(self.conv(x)))
        return self.dense((self.between(hidden) if self.between else hidden).mean((2, 3)))


class Attention(nn.Module):
    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        heads = x.reshape(-1, 1, 4, 4)
        return F.scaled_dot_product_attention(heads, heads, heads, dropout_p=self.p).reshape(-1, 16)


class Branches(nn.Module):
    """Dropout in one branch of a torch.cond, which `deep` puts into another."""

    def __init__(self, deep: bool = False) -> None:
        super().__init__()
        self.first, self.last, self.deep = nn.Linear(FEATURES, 16), nn.Linear(16, CLASSES), deep

    def forward(self, x: Tensor) -> Tensor:
        def drop(a: Tensor) -> Tensor:
            return F.dropout(a, 0.5)

        def inner(a: Tensor) -> Tensor:
            return torch.cond(a.sum() > -1e9, drop, lambda b: b * 2, (a,)) if self.deep else drop(a)

        return self.last(torch.cond(x.sum() > -1e9, inner, lambda a: a * 2, (self.first(x),)))


class Recurrent(nn.Module):
    def __init__(self, dropout: float = 0.3) -> None:
        super().__init__()
        self.rnn, self.last = nn.LSTM(FEATURES, 16, num_layers=2, dropout=dropout, batch_first=True), nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.rnn(x)[0][:, -1])


class Held(nn.Module):
    """A dropout that eval() does not reach, because it is held where modules are not looked for."""

    def __init__(self, hold: Callable[[nn.Module], Any], use: Callable[[Any], Callable[[Tensor], Tensor]]) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(FEATURES, 16), nn.Linear(16, CLASSES)
        self.held, self.use = hold(nn.Dropout(0.5)), use

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.use(self.held)(self.first(x)))


class StuckInTraining(nn.Dropout):
    def train(self, mode: bool = True) -> "StuckInTraining":
        return super().train(True)


class ForgetsAChild(Net):
    def train(self, mode: bool = True) -> "ForgetsAChild":
        self.training = mode
        self.first.train(mode)
        self.last.train(mode)
        return self


class MadeLate(nn.Module):
    """Makes its dropout in the first forward, after eval() has gone by."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.drop = nn.Linear(FEATURES, CLASSES), None

    def forward(self, x: Tensor) -> Tensor:
        if self.drop is None:
            self.drop = nn.Dropout(0.5)
        return self.drop(self.first(x))


class OwnGenerator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.dense, self.generator = nn.Linear(FEATURES, CLASSES), torch.Generator().manual_seed(3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.dense(x)
        return hidden * (torch.rand(hidden.shape, generator=self.generator) > 0.5)


class EveryThirdCall(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.dense, self.calls = nn.Linear(FEATURES, CLASSES), 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.dense(x) * (0.5 if self.calls % 3 == 0 else 1.0)


class Scaled(nn.Module):
    """Dropout by hand: what is kept is multiplied by `factor(p)`, where 1 / (1 - p) is right."""

    def __init__(self, factor: Callable[[float], float], p: float = 0.3) -> None:
        super().__init__()
        self.p, self.factor = p, factor

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        return x * (torch.rand_like(x) >= self.p) * self.factor(self.p)


class SwappedAtHalf(nn.Module):
    """Keeps with probability p and divides by 1 - p, which at its rate of one half looks right."""

    def __init__(self) -> None:
        super().__init__()
        self.p = 0.5

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.bernoulli(torch.full_like(x, self.p)) / (1 - self.p) if self.training else x


class DropConnect(nn.Linear):
    """Drops weights; `live` in eval mode too, else without the scale."""

    def __init__(self, live: bool) -> None:
        super().__init__(16, 16)
        self.live = live

    def forward(self, x: Tensor) -> Tensor:
        if self.live:
            return F.linear(x, F.dropout(self.weight, 0.3, training=True), self.bias)
        weight = self.weight * torch.bernoulli(torch.full_like(self.weight, 0.7)) if self.training else self.weight
        return F.linear(x, weight, self.bias)


class OneMaskPerSequence(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.last = nn.GRU(FEATURES, 16, batch_first=True), nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        mask = F.dropout(torch.ones(x.shape[0], 1, FEATURES), 0.3, training=True)
        return self.last(self.rnn(x * mask)[0][:, -1])


class EmbeddingDropout(nn.Module):
    def __init__(self, live: bool) -> None:
        super().__init__()
        self.embedding, self.last, self.live = nn.Embedding(20, 16), nn.Linear(16, CLASSES), live
        if not live:
            self.embedding = UnscaledEmbedding(20, 16)

    def forward(self, x: Tensor) -> Tensor:
        if not self.live:
            return self.last(self.embedding(x).mean(1))
        mask = self.embedding.weight.new_empty(20, 1).bernoulli_(0.9) / 0.9
        return self.last(F.embedding(x, self.embedding.weight * mask).mean(1))


class UnscaledEmbedding(nn.Embedding):
    def forward(self, x: Tensor) -> Tensor:
        kept = torch.bernoulli(torch.full((self.num_embeddings, 1), 0.7)) if self.training else 1.0
        return F.embedding(x, self.weight * kept)


class StochasticDepth(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        keep = (torch.rand(x.shape[0], 1) < 0.8).to(x.dtype) / 0.8
        return x + keep * self.block(x)


class WritesInEval(nn.Module):
    """Batch norm by hand that goes on averaging."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(16))

    def forward(self, x: Tensor) -> Tensor:
        centred = x - self.mean
        with torch.no_grad():
            self.mean.mul_(0.9).add_(0.1 * x.mean(0))
        return centred


class FlagFromConstruction(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(training=True)

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, 0.2, self.config.training)


@torch.library.custom_op("zoo::noisy", mutates_args=())
def noisy(x: Tensor) -> Tensor:
    return x + torch.from_numpy(np.random.standard_normal(tuple(x.shape)).astype(np.float32))


@noisy.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


class Sampled(nn.Module):
    """A variational layer that samples in eval mode, too."""

    def __init__(self) -> None:
        super().__init__()
        self.mean, self.spread = nn.Linear(16, 16), nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        return torch.distributions.Normal(self.mean(x), F.softplus(self.spread(x)) + 0.1).rsample()


def _quantised() -> nn.Module:
    return torch.ao.quantization.quantize_dynamic(Net(lambda x: F.dropout(x, 0.5)), {nn.Linear}, dtype=torch.qint8)


def _traced() -> nn.Module:
    net = nn.Sequential(nn.Linear(FEATURES, 16), nn.Dropout(0.5), nn.Linear(16, CLASSES)).train()
    return torch.jit.trace(net, torch.randn(4, FEATURES), check_trace=False).eval()


def _drop_large_batches(x: Tensor) -> Tensor:
    return F.dropout(x, 0.5) if x.shape[0] > 8 else x


def _drop_with_gradients(x: Tensor) -> Tensor:
    return F.dropout(x, 0.5) if torch.is_grad_enabled() else x


def _drop_inline(net: "Inline", x: Tensor) -> Tensor:
    return x * torch.bernoulli(torch.full_like(x, 0.7)) if net.training else x


class Inline(nn.Module):
    """Unscaled dropout in the model's own forward, between layers that are not linear."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(FEATURES, 16), nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.gelu(_drop_inline(self, F.gelu(self.first(x)))))


BROKEN = {
    "functional dropout that is always on": Broken(
        lambda: Net(lambda x: F.dropout(x, 0.5)), ROW, "live_ops", "aten.dropout (train=True, p=0.5)|'Net'"),
    "dropout2d with training written in": Broken(
        lambda: Cnn(nn.BatchNorm2d(8), lambda x: F.dropout2d(x, 0.3, training=True)), IMAGE, "live_ops",
        "aten.feature_dropout (train=True, p=0.3)|'Cnn'"),
    "alpha dropout that is always on": Broken(
        lambda: Net(lambda x: F.alpha_dropout(x, 0.3, training=True)), ROW, "live_ops", "aten.alpha_dropout (train=True, p=0.3)"),
    "dropout built in forward": Broken(lambda: Net(lambda x: nn.Dropout(0.5)(x)), ROW, "live_ops", "aten.dropout (train=True, p=0.5)"),
    "attention with dropout_p": Broken(
        lambda: Net(middle=Attention(0.2)), ROW, "live_ops", "aten.scaled_dot_product_attention (dropout_p=0.2)|'middle'"),
    "mask from rand_like": Broken(
        lambda: Net(lambda x: x * (torch.rand_like(x) > 0.5)), ROW, "live_ops", "aten.rand_like draws random numbers"),
    "mask from bernoulli": Broken(
        lambda: Net(lambda x: x * torch.bernoulli(torch.full_like(x, 0.5))), ROW, "live_ops", "aten.bernoulli draws"),
    "gaussian noise": Broken(lambda: Net(lambda x: x + torch.randn_like(x)), ROW, "live_ops", "aten.randn_like draws"),
    "a variational layer that samples": Broken(lambda: Net(middle=Sampled()), ROW, "live_ops", "draws random numbers in layer 'middle'"),
    "gumbel softmax": Broken(lambda: Net(lambda x: F.gumbel_softmax(x)), ROW, "live_ops", "draws random numbers"),
    "a random permutation of the batch": Broken(lambda: Net(lambda x: x[torch.randperm(x.shape[0])]), ROW, "live_ops", "aten.randperm"),
    "batch norm without running statistics": Broken(
        lambda: Cnn(nn.BatchNorm2d(8, track_running_stats=False)), IMAGE, "source_batch_invariance", "aten.native_batch_norm|'norm'"),
    "batch norm in training mode, exported": Broken(
        lambda: Cnn(nn.BatchNorm2d(8)), IMAGE, "graph", "aten.batch_norm (training=True)|'norm'", "program"),
    "dropout in training mode, exported": Broken(
        lambda: nn.Sequential(nn.Linear(FEATURES, 16), nn.Dropout(0.4)), ROW, "graph", "aten.dropout (train=True, p=0.4)|'1'", "program"),
    "recurrent dropout in training mode, exported": Broken(
        Recurrent, floats(6, 5, FEATURES), "graph", "aten.lstm (train=True, dropout=0.3)|'rnn'", "program"),
    "instance norm that updates its statistics, exported": Broken(
        lambda: Cnn(nn.InstanceNorm2d(8, track_running_stats=True)), IMAGE, "graph",
        "aten.instance_norm (use_input_stats=True)|'norm'", "program"),
    "a model that is still in training mode": Broken(
        lambda: nn.Sequential(nn.Linear(FEATURES, 16), nn.Dropout(0.4)), ROW, "module_walk", "Dropout in layer '1'|eval()", "as-is"),
    "dropout in a branch of cond": Broken(Branches, ROW, "live_ops", "dropout|'Branches'"),
    "dropout in a branch of a branch": Broken(lambda: Branches(deep=True), ROW, "live_ops", "dropout|'Branches'"),
    "rrelu in training mode": Broken(lambda: Net(lambda x: F.rrelu(x, training=True)), ROW, "live_ops", "aten.rrelu"),
    "dropout in a python list": Broken(lambda: Held(lambda d: [d], lambda held: held[0]), ROW, "module_walk", "Dropout in 'held[0]'"),
    "dropout in a dictionary of a plain object": Broken(
        lambda: Held(lambda d: SimpleNamespace(layers={"a": d}), lambda held: held.layers["a"]), ROW, "module_walk", "'held.layers['a']'"),
    "dropout in a partial function": Broken(
        lambda: Held(lambda d: functools.partial(lambda layer, x: layer(x), d), lambda held: held), ROW,
        "module_walk", "Dropout in 'held()[0]'"),
    "dropout in a closure": Broken(lambda: Held(lambda d: (lambda x: d(x)), lambda held: held), ROW, "module_walk", "Dropout in 'held<d>'"),
    "layer whose train() ignores its mode": Broken(
        lambda: Net(middle=StuckInTraining(0.5)), ROW, "module_walk", "StuckInTraining in layer 'middle'"),
    "train() that forgets a child": Broken(lambda: ForgetsAChild(middle=nn.Dropout(0.5)), ROW, "module_walk", "Dropout in layer 'middle'"),
    "dropout made in the first forward": Broken(MadeLate, ROW, "module_walk", "Dropout in layer 'drop'"),
    "a flag from construction": Broken(
        lambda: Net(middle=FlagFromConstruction()), ROW, "live_ops", "p=0.2): dropout is on in layer 'middle'"),
    "normalised over the batch by hand": Broken(
        lambda: Net(lambda x: (x - x.mean(0)) / (x.var(0, unbiased=False) + 1e-5).sqrt()), ROW, "source_batch_invariance",
        "a row is answered otherwise|aten.mean in layer 'Net'"),
    "softmax over the batch": Broken(lambda: Net(lambda x: x.softmax(0)), ROW, "source_batch_invariance", "aten._softmax in layer 'Net'"),
    "statistics that go on averaging": Broken(lambda: Net(middle=WritesInEval()), ROW, "source_repeat", "differ|middle"),
    "numpy's random numbers": Broken(
        lambda: Net(lambda x: x * torch.from_numpy((np.random.rand(16) > 0.5).astype(np.float32))), ROW,
        "source_repeat", "numpy, random or time|'Net'"),
    "python's random numbers": Broken(
        lambda: Net(lambda x: x * random.random()), ROW, "source_repeat", "aten.mul in layer 'Net'|numpy, random or time"),
    "the time of day": Broken(
        lambda: Net(lambda x: x * (1 + time.time() % 1)), ROW, "source_repeat", "aten.mul in layer 'Net'|numpy, random or time"),
    "a generator of its own": Broken(OwnGenerator, ROW, "source_repeat", "aten.rand in layer 'OwnGenerator'"),
    "every third call": Broken(EveryThirdCall, ROW, "source_repeat", "aten.mul in layer 'EveryThirdCall'"),
    "dropout on large batches alone": Broken(lambda: Net(_drop_large_batches), ROW, "live_ops", "aten.dropout|a batch of 17"),
    "dropout with gradients alone": Broken(lambda: Net(_drop_with_gradients), ROW, "live_ops", "dropout|with gradients"),
    "never scaled": Broken(lambda: Net(middle=Scaled(lambda p: 1.0)), ROW, "expectation", "Scaled in layer 'middle' answers 0.7"),
    "scaled twice": Broken(
        lambda: Net(middle=Scaled(lambda p: 1 / (1 - p) ** 2)), ROW, "expectation", "Scaled in layer 'middle' answers 1.4"),
    "scaled by the rate": Broken(lambda: Net(middle=Scaled(lambda p: 1 / p)), ROW, "expectation", "Scaled in layer 'middle' answers 2.3"),
    "rate and complement swapped at one half": Broken(
        lambda: Net(middle=SwappedAtHalf()), ROW, "expectation", "SwappedAtHalf in layer 'middle'"),
    "dropped weights that are live": Broken(lambda: Net(middle=DropConnect(True)), ROW, "live_ops", "dropout is on in layer 'middle'"),
    "dropped weights that are never scaled": Broken(
        lambda: Net(middle=DropConnect(False)), ROW, "expectation", "DropConnect in layer 'middle'"),
    "one mask for a sequence, live": Broken(
        OneMaskPerSequence, floats(6, 5, FEATURES), "live_ops", "dropout is on in layer 'OneMaskPerSequence'"),
    "embedding dropout, live": Broken(lambda: EmbeddingDropout(True), integers(20, 6, 8), "live_ops", "aten.bernoulli_|'EmbeddingDropout'"),
    "embedding dropout, never scaled": Broken(
        lambda: EmbeddingDropout(False), integers(20, 6, 8), "expectation", "UnscaledEmbedding in layer 'embedding'"),
    "stochastic depth, live": Broken(
        lambda: Net(middle=StochasticDepth()), ROW, "live_ops", "aten.rand draws random numbers in layer 'middle'"),
    "unscaled in the model's own forward": Broken(Inline, ROW, "expectation", "'Inline'"),
    "a custom op with numpy's noise": Broken(lambda: Net(lambda x: noisy(x)), ROW, "source_repeat", "zoo.noisy in layer 'Net'"),
    "compiled": Broken(lambda: torch.compile(Net(lambda x: F.dropout(x, 0.5))), ROW, "live_ops", "dropout is on in layer 'Net'"),
    "quantised": Broken(_quantised, ROW, "live_ops", "dropout is on in layer 'Net'"),
    "traced in training mode": Broken(_traced, ROW, "live_ops", "aten.bernoulli_ draws"),
}
