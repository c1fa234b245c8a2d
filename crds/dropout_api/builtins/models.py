"""Arguments of the built-in models."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from dropout_api.builtins.arguments import Arguments, Width
from dropout_api.dropout import Rate


class MlpArguments(Arguments):
    """Linear, activation, dropout for each hidden width, then a linear layer to the outputs."""

    hidden: Annotated[list[Width], Field(min_length=1, max_length=32)] = [256, 256]
    activation: Literal["ReLU", "GELU", "SELU"] = "ReLU"
    """With SELU the dropout layers are of kind Alpha (arXiv 1706.02515)."""
    dropout: Rate = 0.5


class CnnArguments(Arguments):
    """Blocks of convolution, batch norm, ReLU, max pooling and spatial dropout, then a dense layer with dropout."""

    channels: Annotated[list[Width], Field(min_length=1, max_length=8)] = [32, 64]
    dense: Width = 128
    spatial_dropout: Rate = 0.1
    dropout: Rate = 0.5


class ResnetArguments(Arguments):
    """Residual blocks of two convolutions in stages that halve the image and double the channels (arXiv 1512.03385)."""

    blocks: Annotated[list[Annotated[int, Field(ge=1, le=64)]], Field(min_length=1, max_length=6)] = [2, 2, 2]
    """Blocks of each stage."""
    width: Width = 32
    """Channels of the first stage."""
    stochastic_depth: Rate = 0.1
    """Of the last block; it falls in a line to 0 before the first (arXiv 1603.09382)."""
    dropout: Rate = 0.0
    """Before the last layer."""


class TransformerArguments(Arguments):
    """An encoder that normalises before each sublayer, over token numbers [N, length] or float sequences [N, length, features]."""

    width: Width = 64
    heads: Annotated[int, Field(ge=1, le=256)] = 4
    layers: Annotated[int, Field(ge=1, le=128)] = 2
    feedforward: Width = 128
    dropout: Rate = 0.1
    """After the embedding and in each feedforward part."""
    attention_dropout: Rate = 0.1
    """Of attention weights."""

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width: {self.width} is no multiple of heads {self.heads}")
        return self


class LstmArguments(Arguments):
    """A recurrent network over token numbers [N, length] or float sequences [N, length, features]; the last state answers."""

    cell: Literal["LSTM", "GRU"] = "LSTM"
    hidden: Width = 64
    layers: Annotated[int, Field(ge=1, le=32)] = 1
    embedding: Width = 64
    """Width of a token; not used with float sequences."""
    dropout: Rate = 0.1
    """Between layers, and before the last, linear one."""


MODELS: dict[str, type[Arguments]] = {
    "mlp": MlpArguments, "cnn": CnnArguments, "resnet": ResnetArguments, "transformer": TransformerArguments, "lstm": LstmArguments,
}
