"""From texts to token numbers and back."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor

PADDING, UNKNOWN = "<pad>", "<unknown>"
"""Tokens 0 and 1. No text gives them: of words `<` is one by itself, and a character is one sign."""
WORD = re.compile(r"[^\W_]+|[^\s]")


def split_text(text: str, kind: Literal["Words", "Characters"]) -> list[str]:
    """Words: lower-cased runs of letters and digits, and each other sign. Characters: each as it is."""
    return WORD.findall(text.lower()) if kind == "Words" else list(text)


def make_vocabulary(texts: Iterable[Sequence[str]], size: int) -> tuple[str, ...]:
    """At most `size` tokens, the most frequent ones; of equally frequent ones those that come first in the alphabet."""
    counts = Counter(token for text in texts for token in text)
    frequent = sorted(counts, key=lambda token: (-counts[token], token))
    return (PADDING, UNKNOWN, *frequent[: size - 2])


def encode(texts: Sequence[Sequence[str]], vocabulary: Sequence[str], length: int) -> Tensor:
    """Token numbers [N, length] of int64; longer texts are cut, shorter ones padded at their end with 0."""
    places = {token: number for number, token in enumerate(vocabulary)}
    rows = [[places.get(token, 1) for token in text[:length]] for text in texts]
    return torch.tensor([row + [0] * (length - len(row)) for row in rows], dtype=torch.int64).reshape(len(rows), length)
