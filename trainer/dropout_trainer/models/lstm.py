"""A recurrent network."""

import torch
from torch import Tensor, nn

from dropout_api.builtins.models import LstmArguments
from dropout_trainer.models.interface import Embedding, Interface, require_sequences

CELLS: dict[str, type[nn.LSTM] | type[nn.GRU]] = {"LSTM": nn.LSTM, "GRU": nn.GRU}


class Recurrent(nn.Module):
    """Embedding, LSTM (Hochreiter, Schmidhuber 1997) or GRU (arXiv 1406.1078), the last state, dropout, a linear layer.

    Its dropout layers are called `recurrent`, with more than one layer, and `dropout`. Of tokens the state at the last one that is no
    padding (0) answers: all positions are run, which a batch of any size can be exported with, and what comes after that one has no say.
    """

    def __init__(self, arguments: LstmArguments, seen: Interface) -> None:
        super().__init__()
        between = arguments.dropout if arguments.layers > 1 else 0.0
        self.standardise = seen.standardise() or nn.Identity()
        self.embedding = Embedding(seen.tokens, arguments.embedding) if seen.tokens is not None else nn.Identity()
        width = arguments.embedding if seen.tokens is not None else seen.input_shape[1]
        self.recurrent = CELLS[arguments.cell](width, arguments.hidden, arguments.layers, batch_first=True, dropout=between)
        self.dropout = nn.Dropout(arguments.dropout)
        self.output = nn.Linear(arguments.hidden, seen.outputs)
        self.rescale = seen.rescale() or nn.Identity()

    def forward(self, inputs: Tensor) -> Tensor:
        states, _ = self.recurrent(self.embedding(self.standardise(inputs)))
        last = states[:, -1] if inputs.is_floating_point() else _last_real(states, inputs)
        answer: Tensor = self.rescale(self.output(self.dropout(last)))
        return answer


def lstm(arguments: LstmArguments, seen: Interface) -> nn.Module:
    """Inputs [N, length] of int64 token numbers, or [N, length, features] of float32. Raises ValueError for others."""
    require_sequences("lstm", seen)
    return Recurrent(arguments, seen)


def _last_real(states: Tensor, tokens: Tensor) -> Tensor:
    """[N, hidden] of [N, length, hidden]; of a row of padding alone the first."""
    places = torch.arange(tokens.shape[1], device=tokens.device)
    last = (places * (tokens != 0)).amax(1)
    return states.gather(1, last[:, None, None].expand(-1, 1, states.shape[2])).squeeze(1)
