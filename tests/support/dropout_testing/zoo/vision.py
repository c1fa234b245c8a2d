"""torchvision's model classes, also beside a torch for which its compiled ops were not built, as the CPU wheel."""

import functools
import importlib
from types import ModuleType

import torch

_OPS = ("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor", "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
_kept: list[torch.library.Library] = []


@functools.cache
def models() -> ModuleType:
    """The classes need none of the compiled ops, but the import asks for their names. So does Hugging Face's, which imports this."""
    try:
        return importlib.import_module("torchvision.models")
    except RuntimeError:
        library = torch.library.Library("torchvision", "FRAGMENT")
        _kept.append(library)
        for schema in _OPS:
            library.define(schema)
        return importlib.import_module("torchvision.models")
