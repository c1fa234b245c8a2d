"""A pytest plugin: the fixture `assert_eval_mode`. Every pytest run loads this module, so it imports nothing heavy."""

from collections.abc import Callable

import pytest

from dropout_trainer import testing


@pytest.fixture(scope="session")
def assert_eval_mode() -> Callable[..., None]:
    """`assert_eval_mode(model, example)`: the model, as it is now, is in eval mode; see dropout_trainer.testing."""
    return testing.assert_eval_mode
