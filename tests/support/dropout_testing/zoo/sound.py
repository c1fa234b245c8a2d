"""Networks that are in eval mode after eval(), the kinds among them that a careless check would stop."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - as everybody calls it
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dropout_testing.zoo.broken import CLASSES, FEATURES, IMAGE, ROW, Attention, Cnn, Net, Recurrent, Scaled
from dropout_testing.zoo.entries import Sound, floats, integers

SEQUENCE = floats(6, 5, FEATURES)


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(FEATURES, 2, 32, dropout=0.2, batch_first=True)
        self.encoder, self.last = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(FEATURES, CLASSES)

    def forward(self, x: Tensor, padding: Tensor | None = None) -> Tensor:
        return self.last(self.encoder(x, src_key_padding_mask=padding).mean(1))


class Translator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Transformer(FEATURES, 2, 1, 1, 16, dropout=0.1, batch_first=True)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        return self.inner(source, target)


class SelfAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mha, self.last = nn.MultiheadAttention(FEATURES, 2, dropout=0.2, batch_first=True), nn.Linear(FEATURES, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.mha(x, x, x, need_weights=False)[0].mean(1))


class CausalAttention(nn.Module):
    """Attention dropout as it must be written."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.p = nn.Linear(FEATURES, 3 * FEATURES), 0.2

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        return F.scaled_dot_product_attention(q, k, v, dropout_p=self.p if self.training else 0.0, is_causal=True)


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.drop, self.last = nn.Embedding(20, 16, padding_idx=0), nn.Dropout(0.1), nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.gelu(self.drop(self.embedding(x).mean(1))))


class Packed(nn.Module):
    """Sequences of given lengths."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.last = nn.GRU(FEATURES, 16, batch_first=True), nn.Linear(16, CLASSES)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return self.last(self.rnn(packed)[1][-1])


class Residual(nn.Module):
    """Its last layer begins as zero, so dropout in the branch changes nothing yet."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.drop, self.last = nn.Linear(FEATURES, 16), nn.Dropout(0.3), nn.Linear(16, FEATURES)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.last(self.drop(F.silu(self.first(x))))


class StochasticDepth(nn.Module):
    def __init__(self, p: float = 0.2) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        return x * (torch.rand(x.shape[0], *[1] * (x.dim() - 1)) >= self.p) / (1 - self.p)


class DropBlock(nn.Module):
    """Square regions of a map; what is kept is scaled by the number that was dropped (Ghiasi et al., arXiv 1810.12890)."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        seeds = (torch.rand_like(x) < 0.02).to(x.dtype)
        kept = 1 - F.max_pool2d(seeds, 3, stride=1, padding=1)
        return x * kept * kept.numel() / kept.sum()


class ScaledInEval(nn.Module):
    """Dropout as it was first published: scaled in eval mode."""

    def __init__(self, p: float = 0.4) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        return x * (torch.rand_like(x) >= self.p) if self.training else x * (1 - self.p)


class GaussianDropout(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * (1 + 0.5 * torch.randn_like(x)) if self.training else x


class OwnAlphaDropout(nn.Module):
    """Self-normalising, so its mean is not its input's (Klambauer et al., arXiv 1706.02515)."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        p, floor = 0.2, -1.7580993408473766
        a = ((1 - p) * (1 + p * floor**2)) ** -0.5
        kept = torch.rand_like(x) >= p
        return a * torch.where(kept, x, torch.full_like(x, floor)) - a * p * floor


class DropConnect(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, F.dropout(self.weight, 0.3, self.training), self.bias)


class EmbeddingDropout(nn.Embedding):
    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight * torch.bernoulli(torch.full((self.num_embeddings, 1), 0.9)) / 0.9 if self.training else self.weight
        return F.embedding(x, weight)


class OneMaskPerSequence(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * F.dropout(torch.ones(x.shape[0], 1, x.shape[2]), 0.3, self.training)


class StandardisedConv(nn.Conv2d):
    """Weight standardisation through batch norm over one row (Qiao et al., arXiv 1903.10520)."""

    def forward(self, x: Tensor) -> Tensor:
        flat = F.batch_norm(self.weight.reshape(1, self.out_channels, -1), None, None, training=True)
        return F.conv2d(x, flat.reshape_as(self.weight), self.bias, padding=1)


class FrozenBackbone(nn.Module):
    """Keeps its first part in eval mode while the rest is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(FEATURES, 16), nn.BatchNorm1d(16), nn.Dropout(0.2))
        self.head = nn.Linear(16, CLASSES)

    def train(self, mode: bool = True) -> "FrozenBackbone":
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.backbone(x))


class NeverTrains(Net):
    def train(self, mode: bool = True) -> "NeverTrains":
        return super().train(False)


class WithTeacher(nn.Module):
    """Holds a teacher in training mode out of eval()'s reach, and does not use it in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.dense, self.teacher = nn.Linear(FEATURES, CLASSES), [nn.Sequential(nn.Linear(FEATURES, CLASSES), nn.Dropout(0.5))]

    def forward(self, x: Tensor) -> Tensor:
        return self.dense(x) + 0.1 * self.teacher[0](x) if self.training else self.dense(x)


class Several(nn.Module):
    """Two inputs, one of integers; outputs in a dictionary, one of integers."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.dense, self.drop = nn.Embedding(20, 16), nn.Linear(FEATURES, 16), nn.Dropout(0.3)
        self.last = nn.Linear(16, CLASSES)

    def forward(self, numbers: Tensor, words: Tensor) -> dict[str, Any]:
        logits = self.last(self.drop(self.dense(numbers) + self.embedding(words)))
        return {"logits": logits, "labels": logits.argmax(1), "size": 3}


class Logarithm(nn.Module):
    """Takes positive numbers alone."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(FEATURES, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.dense(x.log())


class Spectrum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(FEATURES, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.dense(torch.fft.fft(x).abs()) + torch.fft.rfft(x).real.mean(1, keepdim=True)


class Checkpointed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Sequential(nn.Linear(FEATURES, 16), nn.Dropout(0.2)), nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(checkpoint(self.first, x, use_reentrant=False))


class BranchesOnValues(nn.Module):
    """Cannot be exported."""

    def __init__(self) -> None:
        super().__init__()
        self.dense, self.drop = nn.Linear(FEATURES, CLASSES), nn.Dropout(0.2)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.drop(self.dense(x))
        return torch.stack([row * 2 if float(row.sum()) > 0 else row for row in hidden])


class Halves(nn.Module):
    """Computes in bfloat16."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Net(middle=nn.Sequential(nn.GELU(), nn.Dropout(0.1))).to(torch.bfloat16)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.to(torch.bfloat16))


class UnusedDropout(Net):
    def __init__(self) -> None:
        super().__init__(F.relu)
        self.unused = nn.Dropout(0.5)


class Loop(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(FEATURES, 16), nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.cond(x.shape[0] > 4, lambda a: a * 2, lambda a: a * 2.0, (self.first(x),))
        return self.last(hidden)


class Recurrence(nn.Module):
    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.rnn = nn.LSTM(FEATURES, 8, **options)

    def forward(self, x: Tensor) -> Tensor:
        return self.rnn(x)[0]


def hugging_face(build: Callable[[Any], nn.Module]) -> Callable[[], nn.Module]:
    def made() -> nn.Module:
        from dropout_testing.zoo.vision import models

        models()  # before transformers, which imports it and gives up where that raises
        import transformers

        transformers.logging.set_verbosity_error()
        return build(transformers)

    return made


def _bert(transformers: Any) -> nn.Module:
    config = transformers.BertConfig(vocab_size=30, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
                                     max_position_embeddings=16)
    return transformers.BertForSequenceClassification(config)


def _gpt2(transformers: Any) -> nn.Module:
    config = transformers.GPT2Config(vocab_size=30, n_positions=16, n_embd=16, n_layer=1, n_head=2, use_cache=False)
    return transformers.GPT2LMHeadModel(config)


def _distilbert(transformers: Any) -> nn.Module:
    return transformers.DistilBertModel(transformers.DistilBertConfig(vocab_size=30, dim=16, n_layers=1, n_heads=2, hidden_dim=32,
                                                                      max_position_embeddings=16))


def _vit(transformers: Any) -> nn.Module:
    return transformers.ViTModel(transformers.ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
                                                        image_size=16, patch_size=8, hidden_dropout_prob=0.1))


def torchvision_model(name: str, **options: Any) -> Callable[[], nn.Module]:
    def made() -> nn.Module:
        from dropout_testing.zoo.vision import models

        return getattr(models(), name)(num_classes=CLASSES, **options)

    return made


def _text() -> dict[str, Tensor]:
    return {"input_ids": integers(30, 4, 6)(), "attention_mask": torch.tensor([[1] * 6, [1] * 4 + [0] * 2, [1] * 5 + [0], [1] * 6])}


SOUND = {
    "mlp": Sound(lambda: nn.Sequential(nn.Linear(FEATURES, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, CLASSES)), ROW),
    "cnn with batch norm": Sound(lambda: Cnn(nn.BatchNorm2d(8)), IMAGE),
    "cnn with group norm": Sound(lambda: Cnn(nn.GroupNorm(2, 8)), IMAGE),
    "cnn with instance norm": Sound(lambda: Cnn(nn.InstanceNorm2d(8)), IMAGE),
    "cnn with instance norm that tracks": Sound(lambda: Cnn(nn.InstanceNorm2d(8, track_running_stats=True)), IMAGE),
    "cnn with dropout2d": Sound(lambda: Cnn(nn.BatchNorm2d(8), nn.Dropout2d(0.2)), IMAGE),
    "standardised weights": Sound(lambda: nn.Sequential(StandardisedConv(1, 4, 3), nn.ReLU(), nn.Dropout2d(0.2)), IMAGE),
    "transformer encoder": Sound(Encoder, SEQUENCE),
    "transformer encoder with padding": Sound(Encoder, lambda: (SEQUENCE(), torch.arange(5) > torch.tensor([4, 3, 2, 4, 1, 3])[:, None])),
    "encoder and decoder": Sound(Translator, lambda: (SEQUENCE(), SEQUENCE()[:, :3])),
    "multi-head attention": Sound(SelfAttention, SEQUENCE),
    "causal attention": Sound(CausalAttention, SEQUENCE),
    "attention without dropout": Sound(lambda: Net(middle=Attention(0.0)), ROW),
    "lstm": Sound(Recurrent, SEQUENCE),
    "lstm with time first": Sound(lambda: Recurrence(num_layers=2, dropout=0.3, bidirectional=True), SEQUENCE),
    "lstm without a batch": Sound(lambda: Recurrence(num_layers=2, dropout=0.3), floats(5, FEATURES)),
    "packed sequences": Sound(Packed, lambda: (SEQUENCE(), torch.tensor([5, 3, 4, 1, 2, 5]))),
    "tokens with padding": Sound(Tokens, integers(20, 6, 8)),
    "several inputs and outputs": Sound(Several, lambda: (ROW(), integers(20, 6)())),
    "residual that begins as zero": Sound(Residual, ROW),
    "dropout of rate zero": Sound(lambda: Net(lambda x: F.dropout(x, 0.0)), ROW),
    "alpha dropout": Sound(lambda: Net(middle=nn.Sequential(nn.SELU(), nn.AlphaDropout(0.2))), ROW),
    "alpha dropout by hand": Sound(lambda: Net(middle=OwnAlphaDropout()), ROW),
    "rrelu": Sound(lambda: Net(middle=nn.RReLU()), ROW),
    "in place on the input": Sound(lambda: nn.Sequential(nn.ReLU(inplace=True), nn.Linear(FEATURES, CLASSES)), ROW),
    "dropout by hand": Sound(lambda: Net(middle=Scaled(lambda p: 1 / (1 - p))), ROW),
    "dropout by hand at one half": Sound(lambda: Net(middle=Scaled(lambda p: 1 / (1 - p), p=0.5)), ROW),
    "dropout that scales in eval mode": Sound(lambda: Net(middle=ScaledInEval()), ROW),
    "gaussian dropout": Sound(lambda: Net(middle=GaussianDropout()), ROW),
    "stochastic depth": Sound(lambda: Net(middle=nn.Sequential(nn.Linear(16, 16), StochasticDepth())), ROW),
    "drop block": Sound(lambda: Cnn(nn.BatchNorm2d(8), DropBlock()), IMAGE),
    "dropped weights": Sound(lambda: Net(middle=DropConnect(16, 16)), ROW),
    "embedding dropout": Sound(lambda: nn.Sequential(EmbeddingDropout(20, 16), nn.Linear(16, CLASSES)), integers(20, 6, 8)),
    "one mask for a sequence": Sound(lambda: nn.Sequential(OneMaskPerSequence(), nn.GELU(), nn.Linear(FEATURES, CLASSES)), SEQUENCE),
    "frozen backbone": Sound(FrozenBackbone, ROW),
    "a train() that stays in eval mode": Sound(lambda: NeverTrains(middle=nn.Dropout(0.5)), ROW),
    "a teacher that is not used": Sound(WithTeacher, ROW),
    "a dropout that is not used": Sound(UnusedDropout, ROW),
    "positive inputs alone": Sound(Logarithm, lambda: ROW().abs() + 0.5),
    "complex numbers inside": Sound(Spectrum, ROW),
    "checkpointed activations": Sound(Checkpointed, ROW),
    "branches on values": Sound(BranchesOnValues, ROW),
    "bfloat16": Sound(Halves, ROW),
    "cond on the batch size": Sound(Loop, ROW),
    "spectral norm": Sound(
        lambda: nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(FEATURES, 16)), nn.Linear(16, CLASSES)), ROW),
    "weight norm": Sound(lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(FEATURES, 16)), nn.Dropout(0.2)), ROW),
    "quantised": Sound(
        lambda: torch.ao.quantization.quantize_dynamic(Net(middle=nn.Dropout(0.4)), {nn.Linear}, dtype=torch.qint8), ROW),
    "compiled": Sound(lambda: torch.compile(Net(middle=nn.Dropout(0.4))), ROW),
    "scripted": Sound(lambda: torch.jit.script(nn.Sequential(nn.Linear(FEATURES, 16), nn.Dropout(0.4), nn.Linear(16, CLASSES))), ROW),
    "Hugging Face BERT": Sound(hugging_face(_bert), _text),
    "Hugging Face GPT-2": Sound(hugging_face(_gpt2), _text),
    "Hugging Face DistilBERT": Sound(hugging_face(_distilbert), _text),
    "Hugging Face ViT": Sound(hugging_face(_vit), lambda: {"pixel_values": floats(3, 3, 16, 16)()}),
    "torchvision ResNet-18": Sound(torchvision_model("resnet18"), floats(2, 3, 32, 32)),
    "torchvision DenseNet with dropout": Sound(
        torchvision_model("DenseNet", growth_rate=4, block_config=(2, 2), num_init_features=8, drop_rate=0.2), floats(3, 3, 32, 32)),
    "torchvision SqueezeNet": Sound(torchvision_model("squeezenet1_1"), floats(2, 3, 32, 32)),
}
