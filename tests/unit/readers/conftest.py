"""Small real files. What goes in is a file and arguments as a manifest has them; what comes out is a `Data`, or one line."""

from collections.abc import Callable
from pathlib import Path

import pytest

from dropout_api.spec import DataSpec
from dropout_trainer.data import Data
from dropout_trainer.errors import StageFailure
from dropout_trainer.train.factories import build_data

Read = Callable[..., Data]
Write = Callable[[str], str]


@pytest.fixture
def read() -> Read:
    def run(factory: str, seed: int = 1, **args: object) -> Data:
        return build_data(DataSpec.model_validate({"factory": factory, "args": args}), seed)

    return run


@pytest.fixture
def refusal(read: Read) -> Callable[..., StageFailure]:
    """What a reader says of arguments or a file that it cannot take; always one line."""

    def run(factory: str, **args: object) -> StageFailure:
        with pytest.raises(StageFailure) as end:
            read(factory, **args)
        assert "\n" not in end.value.message
        return end.value

    return run


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a CSV file and gives its path."""

    def run(content: str, name: str = "rows.csv") -> str:
        path = tmp_path / name
        path.write_bytes(content.encode())
        return str(path)

    return run
