"""Tensors as the pieces of a safetensors file (https://github.com/huggingface/safetensors#format), without a copy of them.

The package's own `save` copies everything twice, which made up two fifths of what a checkpoint costs. It reads what is written here.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

Piece = bytes | memoryview
NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64", torch.int32: "I32",
    torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL", torch.complex64: "C64", torch.uint16: "U16",
    torch.uint32: "U32", torch.uint64: "U64", torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2",
}
ALIGNMENT = 8
BITE = 1 << 20
"""Bytes that are hashed and then written: together they stay in a processor's cache, so that they are fetched from memory once."""


class Digest(Protocol):
    """As hashlib makes it."""

    def update(self, data: Piece, /) -> None: ...


def packed(tensors: Mapping[str, Tensor]) -> list[Piece]:
    """The pieces, in order. Those of tensors on the CPU show their memory: it must not change until they are written.

    Raises ValueError for a tensor whose type the format has no name for.
    """
    header, pieces, at = {}, [], 0
    for name, tensor in sorted(tensors.items()):
        if tensor.dtype not in NAMES:
            raise ValueError(f"{name} is {tensor.dtype}, which safetensors files do not hold")
        data = tensor.detach().cpu().contiguous()
        size = data.numel() * data.element_size()
        header[name] = {"dtype": NAMES[data.dtype], "shape": list(data.shape), "data_offsets": [at, at + size]}
        pieces.append(data.reshape(-1).view(torch.uint8).numpy().data)
        at += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    return [len(text).to_bytes(8, "little"), text, *pieces]


def hashed(pieces: Iterable[Piece], digest: Digest) -> Iterator[memoryview]:
    """The same bytes in bites; `digest` has seen those that were taken. Views are of single bytes."""
    for piece in pieces:
        whole = memoryview(piece)
        for at in range(0, len(whole), BITE):
            bite = whole[at : at + BITE]
            digest.update(bite)
            yield bite


def size_of(pieces: Sequence[Piece]) -> int:
    """In bytes; views are of single bytes."""
    return sum(len(piece) for piece in pieces)
