"""The built-in data readers: files by URI, made into a `Data` and split by the seed alone.

Each is imported when a job names it: pyarrow, Pillow and datasets take longer to import than a small training needs.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any

from dropout_api.builtins.arguments import Arguments
from dropout_trainer.data import Data

READERS = {
    "sklearn": "bundled:sklearn", "fashion_mnist": "fashion_mnist:fashion_mnist", "csv": "table:csv", "parquet": "table:parquet",
    "npz": "npz:npz", "series": "series:series", "text": "text:text", "images": "images:images",
    "hugging_face": "hugging_face:hugging_face",
}
"""Module and function of each, `(arguments, seed) -> Data`."""


def read(name: str, arguments: Arguments, seed: int) -> Data:
    """The data of the built-in `name`. Raises StageFailure when they are not there or cannot be trained on."""
    module, _, function = READERS[name].partition(":")
    reader: Callable[[Any, int], Data] = getattr(import_module(f"{__name__}.{module}"), function)
    return reader(arguments, seed)
