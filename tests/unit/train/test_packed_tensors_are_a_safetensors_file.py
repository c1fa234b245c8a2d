"""What is written piece by piece is what the safetensors package reads."""

import hashlib

import pytest
import torch
from safetensors.torch import load
from torch import Tensor

from dropout_trainer.train.checkpoints.packing import BITE, NAMES, hashed, packed, size_of

TENSORS = {
    **{str(dtype): torch.arange(7).to(dtype).reshape(1, 7) for dtype in NAMES},
    "scalar": torch.tensor(2.5), "empty": torch.zeros(0, 3), "turned": torch.arange(6.0).reshape(2, 3).T, "ünï\"code": torch.ones(2),
}


@pytest.mark.parametrize("tensors", [TENSORS, {}], ids=["all", "none"])
def test_every_type_and_shape_comes_back(tensors: dict[str, Tensor]) -> None:
    pieces = packed(tensors)
    found = load(b"".join(pieces))

    assert size_of(pieces) == len(b"".join(pieces))
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert found[name].shape == tensor.shape
        assert torch.equal(*(item.contiguous().reshape(-1).view(torch.uint8) for item in (found[name], tensor)))


def test_memory_is_shown_and_not_copied() -> None:
    tensor = torch.zeros(1000)
    (*_, piece) = packed({"a": tensor})
    tensor.fill_(1)

    assert bytes(piece) == tensor.numpy().tobytes()


@pytest.mark.parametrize("sizes", [[], [0], [3, 0, 5], [BITE], [2 * BITE + 1, 1]])
def test_what_is_taken_in_bites_is_whole_and_hashed(sizes: list[int]) -> None:
    pieces = [bytes([number + 1]) * size for number, size in enumerate(sizes)]
    digest = hashlib.sha256()
    bites = list(hashed(pieces, digest))

    assert b"".join(bites) == b"".join(pieces)
    assert digest.hexdigest() == hashlib.sha256(b"".join(pieces)).hexdigest()
    assert all(0 < len(bite) <= BITE for bite in bites)


def test_a_type_that_the_format_has_not_is_named() -> None:
    with pytest.raises(ValueError, match=r"moments is torch\.complex128"):
        packed({"moments": torch.zeros(2, dtype=torch.complex128)})
