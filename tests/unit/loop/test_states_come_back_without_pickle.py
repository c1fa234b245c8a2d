"""What state_dict() gives comes back from JSON and tensors as it was, to the bit; what would need pickle is refused, and so is what
no state can hold."""

import json
import math
import random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some
from torch import Tensor, nn

from dropout_trainer.errors import StageFailure
from dropout_trainer.loop import parts
from dropout_trainer.loop.states import DEEPEST, joined, split
from dropout_trainer.train.checkpoints.folder import Refused

SCALARS = some.none() | some.booleans() | some.integers() | some.floats() | some.text() | some.binary()
STATES = some.recursive(
    SCALARS, lambda inner: some.lists(inner) | some.tuples(inner, inner) | some.dictionaries(some.integers() | some.text(), inner),
    max_leaves=12,
)


def again(value: Any) -> Any:
    tensors: dict[str, Tensor] = {}
    return joined(json.loads(json.dumps(split(value, tensors, "0"), allow_nan=False)), tensors)


def same(one: Any, other: Any) -> bool:
    """With types, and NaN equal to itself."""
    return repr(one) == repr(other)


@given(STATES)
def test_anything_of_numbers_and_text(state: Any) -> None:
    assert same(again(state), state)


def test_tensors_keep_their_bits_and_are_copies() -> None:
    state = {"a": torch.randn(3), 7: [torch.tensor(1), torch.zeros(2, dtype=torch.bfloat16)]}
    tensors: dict[str, Tensor] = {}
    as_json = split(state, tensors, "0")
    kept = state["a"].clone()
    state["a"].zero_()
    back = joined(as_json, tensors)
    assert torch.equal(back["a"], kept)
    assert back[7][1].dtype is torch.bfloat16


def test_generators_as_the_hugging_face_trainer_keeps_them() -> None:
    state = {"python": random.getstate(), "numpy": np.random.get_state()}
    back = again(state)
    assert back["python"] == state["python"]
    assert np.array_equal(back["numpy"][1], state["numpy"][1])
    assert back["numpy"][1].dtype == state["numpy"][1].dtype


@pytest.mark.parametrize("made", [
    lambda model: torch.optim.AdamW(model.parameters(), amsgrad=True), lambda model: torch.optim.SGD(model.parameters(), 0.1, momentum=0.9),
    lambda model: torch.optim.LBFGS(model.parameters()),
])
def test_optimisers_go_on_to_the_bit(made: Any) -> None:
    def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        def closure() -> Tensor:
            optimizer.zero_grad()
            loss: Tensor = model(torch.ones(2, 3)).square().sum()
            loss.backward()
            return loss

        optimizer.step(closure)

    one, other = nn.Linear(3, 2), nn.Linear(3, 2)
    mine, theirs = made(one), made(other)
    step(one, mine)
    states, tensors = parts.captured([one, mine])
    parts.restore([other, theirs], states, tensors)
    step(one, mine)
    step(other, theirs)
    assert torch.equal(one.weight, other.weight)


def test_what_would_need_pickle_is_named() -> None:
    class Odd:
        def state_dict(self) -> dict[str, Any]:
            return {"rule": [object()]}

        def load_state_dict(self, state: dict[str, Any]) -> None: ...

    with pytest.raises(StageFailure, match=r"0\.Odd\.rule\.0 is a object, which no checkpoint holds"):
        parts.captured([Odd()])


@pytest.mark.parametrize("hostile", [
    {"tensor": "1"}, {"float": "1e9"}, {"array": ["|O", [1]]}, {"array": ["no", [1]]}, {"mapping": [[[1], 2]]}, {"mapping": 3},
    {"bytes": "x"}, {"eval": "exit()"}, {"tuple": 1, "mapping": []}, {},
])
def test_what_no_state_can_hold_is_refused(hostile: Any) -> None:
    with pytest.raises(Refused):
        joined(hostile, {})


def test_nesting_has_an_end() -> None:
    value: Any = 1
    for _ in range(DEEPEST + 1):
        value = [value]
    with pytest.raises(Refused, match="nested"):
        joined(value, {})


def test_a_part_that_refuses_leaves_all_as_they_were() -> None:
    """The second part's state is of other groups: the first has been loaded by then, and is put back."""
    one, other = nn.Linear(3, 2), nn.Linear(3, 2)
    groups = [{"params": [one.weight]}, {"params": [one.bias]}]
    states, tensors = parts.captured([one, torch.optim.SGD(groups, 0.1)])
    before = other.weight.detach().clone()
    with pytest.raises(Refused, match="SGD"):
        parts.restore([other, torch.optim.SGD(other.parameters(), 0.1)], states, tensors)
    assert torch.equal(other.weight, before)


def test_an_optimiser_with_moments_of_another_shape_is_refused() -> None:
    model = nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    states, tensors = parts.captured([optimizer])
    tensors["0.Adam.state.0.exp_avg"] = torch.zeros(3, 3)
    with pytest.raises(Refused, match=r"exp_avg of parameter 0 is \[3, 3\]"):
        parts.restore([optimizer], states, tensors)


def test_infinities_are_no_bare_words_of_json() -> None:
    assert again([math.inf, -math.inf]) == [math.inf, -math.inf]
