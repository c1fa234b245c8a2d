"""Networks that were written without knowledge of the checks; FRESH.md says what the gate made of each at first sight."""

import copy
import functools
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - as everybody calls it
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from dropout_testing.zoo.entries import Broken, Options, Sound, floats, integers

FEATURES, CLASSES = 8, 3
ROW = floats(6, FEATURES)
IMAGE = floats(6, 3, 8, 8)
SERIES = floats(6, 12, 4)
RING = torch.tensor([[0, 1, 2, 3, 4, 5, 0, 2], [1, 2, 3, 4, 5, 0, 3, 5]])


class RoundAtRandom(torch.autograd.Function):
    """Stochastic rounding with a straight-through gradient."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, step: float) -> Tensor:
        return torch.floor(x / step + torch.rand_like(x)) * step

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None


class FakeQuantize(nn.Module):
    def __init__(self, step: float = 0.25) -> None:
        super().__init__()
        self.step = step

    def forward(self, x: Tensor) -> Tensor:
        return RoundAtRandom.apply(x, self.step)


def quantized() -> nn.Module:
    layers = nn.Sequential()
    for name, layer in {
        "first": nn.Linear(FEATURES, 16),
        "relu": nn.ReLU(),
        "quantize": FakeQuantize(),
        "drop": nn.Dropout(0.1),
        "last": nn.Linear(16, CLASSES),
    }.items():
        layers.add_module(name, layer)
    return layers


@dataclass(frozen=True)
class LoraConfig:
    rank: int = 2
    alpha: float = 4.0
    dropout: float = 0.2


def lora_forward(layer: nn.Linear, config: LoraConfig, training: bool, x: Tensor) -> Tensor:
    low = F.linear(F.dropout(x, config.dropout, training), layer.lora_a)
    return F.linear(x, layer.weight, layer.bias) + F.linear(low, layer.lora_b) * (config.alpha / config.rank)


def inject(model: nn.Module, config: LoraConfig) -> nn.Module:
    """Patch the forward of every linear layer, as adapters' injectors do. The mode is the one of the moment of patching."""
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            layer.lora_a = nn.Parameter(torch.randn(config.rank, layer.in_features) * 0.3)
            layer.lora_b = nn.Parameter(torch.randn(layer.out_features, config.rank) * 0.3)
            layer.forward = functools.partial(lora_forward, layer, config, layer.training)
    return model


def adapted() -> nn.Module:
    return inject(nn.Sequential(nn.Linear(FEATURES, 16), nn.GELU(), nn.Linear(16, CLASSES)), LoraConfig())


class DropBlock2d(nn.Module):
    """Zeroes squares of the feature map, and does not make up for what it took."""

    def __init__(self, p: float, size: int) -> None:
        super().__init__()
        self.p, self.size = p, size

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        gamma = self.p / self.size**2
        seeds = (torch.rand(x.shape[0], 1, *x.shape[2:], device=x.device) < gamma).to(x.dtype)
        squares = F.max_pool2d(seeds, self.size, stride=1, padding=self.size // 2)
        return x * (1 - squares)


class BlockDropped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.dropblock, self.head = DropBlock2d(0.3, 3), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.dropblock(F.relu(self.norm(self.stem(x))))
        return self.head(x.mean((2, 3)))


class MixLinear(nn.Linear):
    """Mixout without its correction: weights go back to the pretrained ones at random, and the mean goes with them."""

    def __init__(self, inputs: int, outputs: int, p: float) -> None:
        super().__init__(inputs, outputs)
        self.p = p
        self.register_buffer("pretrained", self.weight.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return F.linear(x, self.weight, self.bias)
        back = torch.rand_like(self.weight) < self.p
        return F.linear(x, torch.where(back, self.pretrained, self.weight), self.bias)


def mixed_out() -> nn.Module:
    """After a while of fine-tuning: the weights are no longer the pretrained ones."""
    first, last = MixLinear(FEATURES, 16, 0.3), MixLinear(16, CLASSES, 0.3)
    with torch.no_grad():
        for layer in (first, last):
            layer.weight.add_(0.3 * torch.randn_like(layer.weight))
    return nn.Sequential(first, nn.Tanh(), last)


class Codebook(nn.Module):
    """Vector quantisation whose codes follow what they see by a running average, in every mode."""

    def __init__(self, codes: int, width: int, decay: float = 0.9) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("codes", torch.randn(codes, width))
        self.register_buffer("counts", torch.ones(codes))
        self.register_buffer("sums", self.codes.clone())

    def forward(self, z: Tensor) -> Tensor:
        chosen = torch.cdist(z, self.codes).argmin(-1)
        quantised = F.embedding(chosen, self.codes)
        with torch.no_grad():
            hot = F.one_hot(chosen, len(self.codes)).to(z.dtype)
            self.counts.mul_(self.decay).add_(hot.sum(0), alpha=1 - self.decay)
            self.sums.mul_(self.decay).add_(hot.t() @ z, alpha=1 - self.decay)
            self.codes.copy_(self.sums / self.counts.clamp_min(1e-5).unsqueeze(1))
        return z + (quantised - z).detach()


class VqAutoencoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(FEATURES, 16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 4))
        self.codebook, self.decoder = Codebook(6, 4), nn.Linear(4, FEATURES)

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.codebook(self.encoder(x)))


class GraphConv(nn.Module):
    """Message passing over a fixed graph with DropEdge. One dice for all layers; nobody asks for the mode."""

    dice = torch.Generator().manual_seed(13)

    def __init__(self, inputs: int, outputs: int, p: float = 0.2) -> None:
        super().__init__()
        self.p, self.linear = p, nn.Linear(inputs, outputs)
        self.register_buffer("edges", RING.clone())

    def forward(self, x: Tensor) -> Tensor:
        source, target = self.edges
        keep = torch.full((source.shape[0],), 1 - self.p)
        weight = torch.bernoulli(keep, generator=GraphConv.dice) / (1 - self.p)
        messages = self.linear(x)[:, source] * weight[None, :, None]
        return torch.zeros(*x.shape[:2], messages.shape[-1]).index_add(1, target, messages)


class Molecule(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.readout = GraphConv(4, 8), GraphConv(8, 8), nn.Linear(8, CLASSES)

    def forward(self, atoms: Tensor) -> Tensor:
        return self.readout(F.relu(self.conv2(F.relu(self.conv1(atoms)))).sum(1))


class PrototypeHead(nn.Module):
    """Assignments to prototypes, balanced over the batch by Sinkhorn's iteration: for training's loss, but given out always."""

    def __init__(self, width: int, prototypes: int) -> None:
        super().__init__()
        self.prototypes = nn.Linear(width, prototypes, bias=False)

    def forward(self, z: Tensor) -> Tensor:
        q = torch.exp(self.prototypes(F.normalize(z, dim=1)) / 0.5)
        for _ in range(3):
            q = q / q.sum(0, keepdim=True) / q.shape[1]
            q = q / q.sum(1, keepdim=True)
        return q


class Clustering(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(FEATURES, 16), nn.ReLU(), nn.Dropout(0.2))
        self.head = PrototypeHead(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.backbone(x))


class Mixup(nn.Module):
    """Takes gradients for training."""

    def forward(self, x: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return x
        share = float(np.random.beta(0.4, 0.4))
        return share * x + (1 - share) * x[torch.randperm(x.shape[0])]


class MixedUp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mixup, self.conv, self.head = Mixup(), nn.Conv2d(3, 8, 3, stride=2), nn.Linear(8, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(F.relu(self.conv(self.mixup(image))).mean((2, 3)))


class LazyHead(nn.Module):
    """Makes its layers when it first sees data: after eval(), when it is only used."""

    def __init__(self, classes: int, p: float) -> None:
        super().__init__()
        self.classes, self.p = classes, p
        self.drop: nn.Module | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.drop is None:
            self.drop = nn.Dropout(self.p)
            self.linear = nn.Linear(x.shape[-1], self.classes)
        return self.linear(self.drop(x))


def lazily_headed() -> nn.Module:
    model = nn.Sequential()
    model.add_module("body", nn.Sequential(nn.Linear(FEATURES, 16), nn.SiLU()))
    model.add_module("head", LazyHead(CLASSES, 0.3))
    return model


def member() -> nn.Module:
    return nn.Sequential(nn.Linear(FEATURES, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, CLASSES))


class Ensemble(nn.Module):
    """Members stacked for vmap. The skeleton that they run through is in a partial, where eval() does not come."""

    def __init__(self, size: int) -> None:
        super().__init__()
        members = [member() for _ in range(size)]
        stacked, _ = torch.func.stack_module_state(members)
        self.names = list(stacked)
        self.stacked = nn.ParameterList(nn.Parameter(value.detach()) for value in stacked.values())
        self.call = functools.partial(torch.func.functional_call, copy.deepcopy(members[0]).to("meta"))

    def forward(self, x: Tensor) -> Tensor:
        weights = dict(zip(self.names, self.stacked, strict=True))
        answers = torch.func.vmap(self.call, in_dims=(0, None), randomness="different")(weights, x)
        return answers.softmax(-1).mean(0)


class StdConv2d(nn.Conv2d):
    """A convolution with standardised weights: batch_norm in training mode, of the weights and not of the batch."""

    def forward(self, x: Tensor) -> Tensor:
        flat = self.weight.reshape(1, self.out_channels, -1)
        weight = F.batch_norm(flat, None, None, training=True, momentum=0.0, eps=1e-6).reshape_as(self.weight)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


def weight_standardised() -> nn.Module:
    return nn.Sequential(
        StdConv2d(3, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.ReLU(), nn.Dropout2d(0.1), StdConv2d(8, CLASSES, 3), nn.Flatten()
    )


class Zoneout(nn.Module):
    """Hidden units that keep their last value at random; at their mean in eval mode."""

    def __init__(self, inputs: int, hidden: int, p: float) -> None:
        super().__init__()
        self.cell, self.p = nn.GRUCell(inputs, hidden), p

    def forward(self, x: Tensor) -> Tensor:
        state = x.new_zeros(x.shape[0], self.cell.hidden_size)
        for step in x.unbind(1):
            new = self.cell(step, state)
            keep = torch.bernoulli(torch.full_like(new, self.p)) if self.training else self.p
            state = keep * state + (1 - keep) * new
        return state


def zoned_out() -> nn.Module:
    return nn.Sequential(Zoneout(4, 8, 0.15), nn.Linear(8, CLASSES))


class LoraLinear(nn.Module):
    """A frozen layer and its adapter as it is born: the branch with the dropout answers zero."""

    def __init__(self, base: nn.Linear, config: LoraConfig) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.lora_a = nn.Linear(base.in_features, config.rank, bias=False)
        self.lora_b = nn.Linear(config.rank, base.out_features, bias=False)
        self.lora_dropout, self.scale = nn.Dropout(config.dropout), config.alpha / config.rank
        nn.init.zeros_(self.lora_b.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.lora_b(self.lora_a(self.lora_dropout(x))) * self.scale


def newly_adapted() -> nn.Module:
    config = LoraConfig()
    return nn.Sequential(LoraLinear(nn.Linear(FEATURES, 16), config), nn.GELU(), LoraLinear(nn.Linear(16, CLASSES), config))


class RDrop(nn.Module):
    """Two passes and their divergence in training, one answer in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.net = member()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        logits = self.net(x)
        if not self.training:
            return {"logits": logits}
        one, other = F.log_softmax(logits, -1), F.log_softmax(self.net(x), -1)
        both = F.kl_div(one, other, log_target=True, reduction="batchmean") + F.kl_div(other, one, log_target=True, reduction="batchmean")
        return {"logits": logits, "divergence": both / 2}


class MeanTeacher(nn.Module):
    """A teacher that is never in training mode, and follows the student in training only."""

    def __init__(self, momentum: float = 0.95) -> None:
        super().__init__()
        self.momentum, self.student = momentum, member()
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)

    def train(self, mode: bool = True) -> "MeanTeacher":
        super().train(mode)
        self.teacher.eval()
        return self

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.training:
            with torch.no_grad():
                for slow, fast in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
                    slow.lerp_(fast, 1 - self.momentum)
        return self.student(x), self.teacher(x)


class RevIn(nn.Module):
    """A forecaster that takes every series' own mean and spread away, and gives them back."""

    def __init__(self, past: int, channels: int, future: int) -> None:
        super().__init__()
        self.gain, self.shift = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.mix = nn.Sequential(nn.Linear(past, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, future))

    def forward(self, x: Tensor) -> Tensor:
        mean, spread = x.mean(1, keepdim=True), (x.var(1, keepdim=True, unbiased=False) + 1e-5).sqrt()
        x = (x - mean) / spread * self.gain + self.shift
        x = self.mix(x.transpose(1, 2)).transpose(1, 2)
        return (x - self.shift) / (self.gain + 1e-8) * spread + mean


class GraphAttention(nn.Module):
    """Attention over the edges of one graph, whose nodes are no batch, with dropout on the coefficients."""

    def __init__(self, inputs: int, outputs: int, p: float = 0.3) -> None:
        super().__init__()
        self.p, self.linear = p, nn.Linear(inputs, outputs, bias=False)
        self.score = nn.Linear(2 * outputs, 1)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        h, (source, target) = self.linear(x), edges
        score = F.leaky_relu(self.score(torch.cat([h[source], h[target]], -1)).squeeze(-1), 0.2)
        top = score.new_full((x.shape[0],), -torch.inf).scatter_reduce(0, target, score, "amax")
        weight = (score - top[target]).exp()
        weight = weight / weight.new_zeros(x.shape[0]).index_add(0, target, weight)[target]
        weight = F.dropout(weight, self.p, self.training)
        return torch.zeros_like(h).index_add(0, target, weight.unsqueeze(-1) * h[source])


class CitationNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = GraphAttention(FEATURES, 16), GraphAttention(16, CLASSES)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        return F.log_softmax(self.last(F.elu(self.first(x, edges)), edges), -1)


class NoisyMixture(nn.Module):
    """Experts behind a router that is noisy in training only; rows are gathered by expert and added back."""

    def __init__(self, experts: int = 4, chosen: int = 2) -> None:
        super().__init__()
        self.chosen, self.router, self.noise = chosen, nn.Linear(FEATURES, experts), nn.Linear(FEATURES, experts)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(FEATURES, 16), nn.ReLU(), nn.Linear(16, CLASSES)) for _ in range(experts))
        self.load: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        logits = self.router(x)
        if self.training:
            logits = logits + torch.randn_like(logits) * F.softplus(self.noise(x))
            self.load = logits.softmax(-1).mean(0)
        best, index = logits.topk(self.chosen, -1)
        share, answer = best.softmax(-1), x.new_zeros(x.shape[0], CLASSES)
        for number, expert in enumerate(self.experts):
            rows, place = torch.where(index == number)
            answer = answer.index_add(0, rows, expert(x[rows]) * share[rows, place, None])
        return answer


class SeededFeatures(nn.Module):
    """Random Fourier features that are drawn anew in every call, from a seed that is part of the model."""

    def __init__(self, seed: int = 7) -> None:
        super().__init__()
        self.seed, self.drop, self.head = seed, nn.Dropout(0.1), nn.Linear(32, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        dice = torch.Generator().manual_seed(self.seed)
        wave = x @ torch.randn(x.shape[-1], 16, generator=dice)
        return self.head(self.drop(torch.cat([wave.cos(), wave.sin()], -1)))


class LockedDropout(nn.Module):
    """One mask for all steps of a sequence."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        return x * x.new_empty(x.shape[0], 1, x.shape[2]).bernoulli_(1 - self.p).div_(1 - self.p)


class TiedLanguageModel(nn.Module):
    def __init__(self, words: int = 20, width: int = 8) -> None:
        super().__init__()
        self.embed, self.locked = nn.Embedding(words, width), LockedDropout(0.25)
        self.rnn, self.decoder = nn.LSTM(width, width, 2, batch_first=True, dropout=0.2), nn.Linear(width, words)
        self.decoder.weight = self.embed.weight

    def forward(self, words: Tensor) -> Tensor:
        return self.decoder(self.locked(self.rnn(self.locked(self.embed(words)))[0]))


FRESH_BROKEN: dict[str, Broken] = {
    "quantised by stochastic rounding": Broken(quantized, ROW, "live_ops", "rand_like|quantize"),
    "adapters patched in with the mode of the day": Broken(adapted, ROW, "live_ops", "dropout"),
    "drop block that takes and does not give": Broken(BlockDropped, IMAGE, "expectation", "dropblock"),
    "mixout without its correction": Broken(mixed_out, ROW, "expectation", "MixLinear"),
    "codebook that moves in eval mode": Broken(VqAutoencoder, ROW, "source_repeat", "codebook"),
    "edges dropped by a dice of their own": Broken(Molecule, floats(6, 6, 4), "source_repeat", "bernoulli|conv1"),
    "assignments balanced over the batch": Broken(Clustering, ROW, "source_batch_invariance", "head"),
    "mixup wherever gradients flow": Broken(MixedUp, IMAGE, "live_ops", "mixup"),
    "dropout that is made in the first call": Broken(lazily_headed, ROW, "module_walk", "head.drop"),
    "features from a seed of the model": Broken(SeededFeatures, ROW, "graph", "aten.randn draws random numbers|SeededFeatures"),
    "ensemble through a skeleton out of reach": Broken(lambda: Ensemble(3), ROW, "module_walk", "dropout"),
}

FRESH_SOUND: dict[str, Sound] = {
    "standardised weights": Sound(weight_standardised, IMAGE),
    "zoneout at its mean": Sound(zoned_out, SERIES),
    "adapters as they are born": Sound(newly_adapted, ROW),
    "two answers in training, one in eval mode": Sound(RDrop, ROW),
    "teacher that is never trained": Sound(MeanTeacher, ROW),
    "every series by its own mean": Sound(lambda: RevIn(12, 4, 5), SERIES),
    "nodes of one graph": Sound(CitationNet, lambda: (floats(6, FEATURES)(), RING.clone()), Options(batch_dim=None)),
    "experts behind a noisy router": Sound(NoisyMixture, ROW),
    "language model with tied weights": Sound(TiedLanguageModel, integers(20, 6, 7)),
}
