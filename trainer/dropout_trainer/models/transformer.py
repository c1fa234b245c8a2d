"""A transformer encoder."""

import math
from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - as everyone writes it

from dropout_api.builtins.models import TransformerArguments
from dropout_trainer.models.interface import Embedding, Interface, require_sequences


class SelfAttention(nn.Module):
    """Scaled dot-product attention of several heads; `attention_dropout` is the rate of its weights (Vaswani et al., arXiv 1706.03762)."""

    def __init__(self, width: int, heads: int, attention_dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.attention_dropout = attention_dropout
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)

    def forward(self, inputs: Tensor, seen: Tensor | None = None) -> Tensor:
        """`inputs` [N, length, width]; `seen` [N, 1, 1, length] says which positions may be looked at, all when None."""
        parts = self.queries_keys_values(inputs).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        rate = self.attention_dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(parts[0], parts[1], parts[2], attn_mask=seen, dropout_p=rate)
        answer: Tensor = self.output(mixed.transpose(1, 2).flatten(2))
        return answer

    def extra_repr(self) -> str:
        return f"heads={self.heads}, attention_dropout={self.attention_dropout}"


class EncoderLayer(nn.Module):
    """Attention and a feedforward part, each normalised before and added to what it got (Xiong et al., arXiv 2002.04745)."""

    def __init__(self, arguments: TransformerArguments) -> None:
        super().__init__()
        width = arguments.width
        self.attention_norm = nn.LayerNorm(width)
        self.attention = SelfAttention(width, arguments.heads, arguments.attention_dropout)
        self.feedforward_norm = nn.LayerNorm(width)
        self.feedforward = nn.Sequential(OrderedDict(
            expand=nn.Linear(width, arguments.feedforward), activation=nn.GELU(), dropout=nn.Dropout(arguments.dropout),
            contract=nn.Linear(arguments.feedforward, width),
        ))

    def forward(self, inputs: Tensor, seen: Tensor | None = None) -> Tensor:
        inputs = inputs + self.attention(self.attention_norm(inputs), seen)
        answer: Tensor = inputs + self.feedforward(self.feedforward_norm(inputs))
        return answer


class Transformer(nn.Module):
    """Embedding, encoder layers, the mean over all positions but padding, a linear layer.

    Its dropout layers are called `dropout`, `layers.0.attention`, `layers.0.feedforward.dropout` and so on. Padding is token 0; it is
    neither looked at nor averaged. A row of nothing else is answered as a sequence whose mean is zero.
    """

    positions: Tensor

    def __init__(self, arguments: TransformerArguments, seen: Interface) -> None:
        super().__init__()
        length, width = seen.input_shape[0], arguments.width
        self.standardise = seen.standardise() or nn.Identity()
        self.embedding = Embedding(seen.tokens, width) if seen.tokens is not None else nn.Linear(seen.input_shape[1], width)
        self.register_buffer("positions", sinusoids(length, width), persistent=False)  # weights then fit sequences of another length
        self.dropout = nn.Dropout(arguments.dropout)
        self.layers = nn.ModuleList(EncoderLayer(arguments) for _ in range(arguments.layers))
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, seen.outputs)
        self.rescale = seen.rescale() or nn.Identity()

    def forward(self, inputs: Tensor) -> Tensor:
        real = None if inputs.is_floating_point() else inputs != 0
        # Attention over no position at all would be 0 / 0, so a row of padding alone looks at its padding.
        seen = None if real is None else (real | ~real.any(1, keepdim=True))[:, None, None, :]
        states = self.dropout(self.embedding(self.standardise(inputs)) + self.positions)
        for layer in self.layers:
            states = layer(states, seen)
        answer: Tensor = self.rescale(self.output(_mean(self.norm(states), real)))
        return answer


def transformer(arguments: TransformerArguments, seen: Interface) -> nn.Module:
    """Inputs [N, length] of int64 token numbers, or [N, length, features] of float32. Raises ValueError for others."""
    require_sequences("transformer", seen)
    return Transformer(arguments, seen)


def sinusoids(length: int, width: int) -> Tensor:
    """Encoding of the positions, [length, width]: sines and cosines by turns, of wavelengths 2π to 10000 × 2π (arXiv 1706.03762, 3.5), over
    √width as the tokens' vectors are.

    They need no training, which suits data that are too few to learn positions from.
    """
    speeds = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))
    angles = torch.arange(length).unsqueeze(1) * speeds
    return torch.stack([angles.sin(), angles.cos()], 2).flatten(1)[:, :width] / math.sqrt(width)


def _mean(states: Tensor, real: Tensor | None) -> Tensor:
    """[N, width] of [N, length, width] over the positions that are `real`, [N, length]."""
    if real is None:
        return states.mean(1)
    weights = real.to(states.dtype).unsqueeze(2)
    return (states * weights).sum(1) / weights.sum(1).clamp(min=1)
