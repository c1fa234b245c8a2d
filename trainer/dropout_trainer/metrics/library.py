"""torchmetrics' functions, imported when one of them is first needed.

torchmetrics imports whatever optional package it finds, for plots and for metrics of images, sound and text: matplotlib, scipy.signal,
torchvision. That took 2.5 s and 130 MiB where 0.2 s and 8 MiB do (measured), and it fails beside a torchvision of another build. So
it is imported as if they were not there, and then forgotten: whoever imports it later gets it whole.
"""

import functools
import importlib
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any
from unittest import mock

import torch

from dropout_api.names import ExitCode
from dropout_trainer.errors import StageFailure

PACKAGE = "torchmetrics"
MODULES = (f"{PACKAGE}.functional.classification", f"{PACKAGE}.functional.regression")
NEEDED = ("torch>", "torch<", PACKAGE)
"""Requirements that are looked up; all others count as missing."""


@dataclass(frozen=True)
class Library:
    """torchmetrics' functional metrics."""

    classification: ModuleType
    regression: ModuleType


@functools.cache
def load() -> Library:
    """Raises StageFailure when torchmetrics cannot be imported."""
    try:
        if PACKAGE in sys.modules:
            return Library(*map(importlib.import_module, MODULES))
        with _alone():
            return Library(*map(importlib.import_module, MODULES))
    except Exception as error:  # an import runs code of many packages, which raises whatever it does
        why = f"{type(error).__name__}: {str(error)[:300]}"
        message = f"spec.image: torchmetrics cannot be imported there ({why}); derive the image from the platform's trainer image"
        raise StageFailure("MetricsUnavailable", message, ExitCode.USER_CODE) from error


@contextmanager
def exactly() -> Iterator[None]:
    """While torch is deterministic, torchmetrics counts with a table of rows × classes²; on the CPU a count is exact either way."""
    strict, warn_only = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(False)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(strict, warn_only=warn_only)


@contextmanager
def _alone() -> Iterator[None]:
    from lightning_utilities.core import imports

    before = set(sys.modules)
    cache: Any = imports.RequirementCache
    look: Callable[[Any], bool] = cache.__bool__

    def needed(requirement: Any) -> bool:
        return str(requirement.requirement or "").startswith(NEEDED) and look(requirement)

    try:
        with mock.patch.object(cache, "__bool__", needed), mock.patch.object(imports, "package_available", return_value=False):
            yield
    finally:
        for name in set(sys.modules) - before:
            if name.partition(".")[0] == PACKAGE:
                del sys.modules[name]
        logging.getLogger(PACKAGE).handlers.clear()  # or a second import would have every line logged twice
