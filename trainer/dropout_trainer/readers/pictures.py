"""Pictures as tensors."""

import io
import warnings

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

MODES = {1: "L", 3: "RGB"}
WHITE = 255
UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning)
"""What Pillow raises for a file that is no picture, broken, or of a size that no picture has."""


def decode(content: bytes, size: tuple[int, int], channels: int) -> Tensor:
    """[channels, height, width] in 0…1, turned as the camera says, scaled to `size` (height, width). Raises one of UNREADABLE."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(io.BytesIO(content)) as picture:
            return as_tensor(ImageOps.exif_transpose(picture), channels, size)


def as_tensor(picture: Image.Image, channels: int, size: tuple[int, int] | None = None) -> Tensor:
    """[channels, height, width] in 0…1; in its own size unless `size` (height, width) is given."""
    picture = picture.convert(MODES[channels])
    if size is not None and (picture.height, picture.width) != size:
        picture = picture.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    values = torch.from_numpy(np.array(picture, np.float32) / WHITE)
    return values.unsqueeze(0) if channels == 1 else values.permute(2, 0, 1).contiguous()
