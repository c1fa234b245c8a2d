"""Finds a user's objects by name, and is the border to their code: what goes wrong there becomes one line."""

import importlib
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dropout_api.names import ExitCode
from dropout_trainer.errors import StageFailure
from dropout_trainer.train.usercode import place

REFERENCE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


def usage(message: str) -> StageFailure:
    return StageFailure("Usage", message, ExitCode.USAGE)


def missing(message: str) -> StageFailure:
    return StageFailure("Missing", message, ExitCode.DATA_MISSING)


@contextmanager
def border(what: str) -> Iterator[None]:
    """Turns whatever the user's code raises into a StageFailure UserCode that says what was asked of it, and where it raised."""
    try:
        yield
    except StageFailure:
        raise
    except SystemExit as error:
        message = f"{what} ended the program (exit {error.code}){place(error)}; guard what a script runs with if __name__ == '__main__'"
        raise StageFailure("UserCode", message, ExitCode.USER_CODE) from error
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        raise StageFailure("UserCode", f"{what} raised {type(error).__name__}: {lines[0]}{place(error)}", ExitCode.USER_CODE) from error


def find(reference: str) -> Any:
    """The object at `package.module:name`, with the current directory on the import path.

    Raises StageFailure: Usage when there is no such module or name, UserCode when importing it raises.
    """
    module_name, _, name = reference.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    with border(f"importing {module_name}"):
        try:
            found: Any = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
                raise
            raise usage(f"{reference}: there is no module {error.name} on the import path, which begins in {os.getcwd()}") from None
    for part in name.split("."):
        if not hasattr(found, part):
            raise usage(f"{reference}: module {module_name} has no {name}")
        found = getattr(found, part)
    return found
