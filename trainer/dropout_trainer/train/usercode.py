"""The border to a user's code: what goes wrong there becomes one line that says what and where, without a traceback of ours."""

import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from dropout_api.names import ExitCode
from dropout_trainer.errors import StageFailure

OURS = Path(__file__).parents[1]
STANDARD_LIBRARY = Path(sysconfig.get_path("stdlib"))
LIBRARIES = ("torch", "numpy", "sklearn")
REMEDIES = {
    "use_deterministic_algorithms": "set spec.determinism to WarnOnly or replace the operation",
    "Expected more than 1 value per channel": "batch norm needs more than one row, so raise spec.training.batchSize",
    "No working C++ compiler": "set spec.training.compile to false, or use an image with g++",
    "could not create a primitive": "this processor has no such layer in that precision, so set spec.training.precision to Float32",
}
"""What to do about an error of torch, by a part of its text, where a field of the spec is to blame whoever wrote the model."""


@contextmanager
def user_code(what: str, factory: str) -> Iterator[None]:
    """Turns an exception of the user's code into a StageFailure; `what` says what was asked of it, as a field or a deed.

    With a built-in `factory` there is no user's code, and an exception is a bug that passes unchanged, but for those of REMEDIES.
    """
    try:
        yield
    except StageFailure:
        raise
    except torch.OutOfMemoryError as error:
        message = f"{what}: the GPU is out of memory; lower spec.training.batchSize ({_first_line(error)})"
        raise StageFailure("OutOfMemory", message, ExitCode.USER_CODE) from None
    except Exception as error:
        if remedy := next((remedy for text, remedy in REMEDIES.items() if text in str(error)), None):
            raise StageFailure("SpecInvalid", f"{what}: {_first_line(error)}; {remedy}", ExitCode.SPEC_INVALID) from None
        if ":" not in factory:
            raise
        raise _failure(what, error) from None


def _failure(what: str, error: Exception) -> StageFailure:
    message = f"{what}: {type(error).__name__}: {_first_line(error)}{place(error)}"
    if isinstance(error, FileNotFoundError):
        remedy = "; put the file into spec.image, or mount it with spec.podTemplate.volumes and volumeMounts"
        return StageFailure("DataMissing", message + remedy, ExitCode.DATA_MISSING)
    return StageFailure("UserCode", message, ExitCode.USER_CODE)


def place(error: BaseException) -> str:
    """` (file:line in function)` of the innermost frame that is neither ours nor a library's.

    Falls back to the innermost frame outside of this package; empty when there is none.
    """
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not Path(frame.filename).is_relative_to(OURS)]
    theirs = [frame for frame in frames if not _of_a_library(Path(frame.filename))]
    for frame in reversed(theirs or frames):
        return f" ({frame.filename}:{frame.lineno} in {frame.name})"
    return ""


def _of_a_library(path: Path) -> bool:
    if "site-packages" in path.parts:
        return path.parts[path.parts.index("site-packages") + 1] in LIBRARIES
    return path.is_relative_to(STANDARD_LIBRARY) or str(path).startswith("<")


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "")
