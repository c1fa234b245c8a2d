"""Fashion-MNIST (Xiao et al., arXiv 1708.07747) from its IDX files."""

import gzip
import struct
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dropout_api.builtins.data import FashionMnistArguments
from dropout_trainer.data import Data, Split
from dropout_trainer.readers.failures import invalid, missing
from dropout_trainer.readers.splitting import TRAIN, VAL, cut, permutation

CLASSES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
UNSIGNED_BYTE = 0x08
WHITE = 255


def fashion_mnist(arguments: FashionMnistArguments, seed: int) -> Data:
    """Images [1, 28, 28] in 0…1; validation rows come from the training files, the test set is the test files'.

    Raises StageFailure when a file is missing or not an IDX file (http://yann.lecun.com/exdb/mnist/).
    """
    folder = Path(arguments.path)
    images, labels = (_idx(folder, f"train-{kind}-ubyte") for kind in ("images-idx3", "labels-idx1"))
    parts = cut(permutation(len(labels), seed)[: arguments.limit], {VAL: arguments.val_fraction})
    train, val = (_images(images[parts[name]], labels[parts[name]]) for name in (TRAIN, VAL))
    test = _images(*(_idx(folder, f"t10k-{kind}-ubyte") for kind in ("images-idx3", "labels-idx1")))
    return Data(train, val, test, CLASSES)


def _images(images: Tensor, labels: Tensor) -> Split:
    return Split(images.unsqueeze(1).to(torch.float32) / WHITE, labels.to(torch.int64))


def _idx(folder: Path, name: str) -> Tensor:
    """The uint8 tensor in an IDX file: two zero bytes, type, number of dimensions, sizes as big-endian 32 bits, data."""
    path = next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)
    if path is None:
        remedy = "mount the volume that holds it with spec.podTemplate.volumes and volumeMounts"
        raise missing("path", f"no {name} or {name}.gz in {folder}; {remedy}")
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        return _parse_idx(content)
    except (OSError, EOFError, ValueError, struct.error) as error:
        raise invalid("path", f"{path} cannot be read: {error}") from None


def _parse_idx(content: bytes) -> Tensor:
    zero, kind, dimensions = struct.unpack_from(">HBB", content)
    if zero or kind != UNSIGNED_BYTE:
        raise ValueError("it is not an IDX file of unsigned bytes")
    sizes = struct.unpack_from(f">{dimensions}I", content, 4)
    flat = np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions)
    return torch.from_numpy(flat.reshape(sizes).copy())
