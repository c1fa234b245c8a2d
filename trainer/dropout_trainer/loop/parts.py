"""What a loop hands over to be saved: models, optimisers, schedulers, generators, anything with a state_dict."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from pydantic import JsonValue
from torch import Tensor, nn

from dropout_api.names import ExitCode
from dropout_trainer.errors import StageFailure
from dropout_trainer.loop.states import joined, misfits, split
from dropout_trainer.train.checkpoints.fitting import unlike
from dropout_trainer.train.checkpoints.folder import Refused
from dropout_trainer.train.state import transient

TRANSIENT = "transient"
"""Of a module: its buffers that are not in the state dict."""


@runtime_checkable
class Stateful(Protocol):
    """As optimisers, schedulers and gradient scalers are."""

    def state_dict(self) -> Mapping[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any: ...


Part = nn.Module | torch.Generator | Stateful


def check(parts: Sequence[object]) -> None:
    """Raises StageFailure for what cannot be saved."""
    for part in parts:
        if not isinstance(part, nn.Module | torch.Generator | Stateful):
            message = f"job.resume takes models, optimisers, schedulers, generators: what has a state_dict, not a {type(part).__name__}"
            raise StageFailure("UserCode", message, ExitCode.USER_CODE)


def kinds(parts: Sequence[Part]) -> list[str]:
    """The class of each."""
    return [type(part).__name__ for part in parts]


def captured(parts: Sequence[Part]) -> tuple[list[JsonValue], dict[str, Tensor]]:
    """Their states as JSON, and copies of the tensors in them. Raises StageFailure for a state that would need pickle."""
    tensors: dict[str, Tensor] = {}
    try:
        return [split(_state(part), tensors, f"{number}.{type(part).__name__}") for number, part in enumerate(parts)], tensors
    except TypeError as error:
        message = f"job.save: {error}, which no checkpoint holds: in a state_dict are tensors, numbers and text"
        raise StageFailure("UserCode", message, ExitCode.USER_CODE) from None


def restore(parts: Sequence[Part], states: Sequence[JsonValue], tensors: Mapping[str, Tensor]) -> None:
    """Puts the states back into the parts. Raises Refused, and leaves all parts as they were, when one does not take its own."""
    wanted = [joined(state, tensors) for state in states]
    for part, state in zip(parts, wanted, strict=True):
        if problem := next(_problems(part, state), None):
            raise Refused(f"{type(part).__name__}: {problem}")
    before, copies = captured(parts)
    try:
        for part, state in zip(parts, wanted, strict=True):
            _load(part, state)
    except Exception as error:  # each kind of part has ways of its own to refuse
        for part, state in zip(parts, before, strict=True):
            _load(part, joined(state, copies))
        raise Refused(f"{type(part).__name__}: {type(error).__name__}: {str(error)[:200]}") from None


def _state(part: Part) -> Mapping[str, Any]:
    if isinstance(part, torch.Generator):
        return {"generator": part.get_state()}
    if isinstance(part, nn.Module):
        return {"weights": dict(part.state_dict()), TRANSIENT: transient(part)}
    return part.state_dict()


def _load(part: Part, state: Any) -> None:
    if isinstance(part, torch.Generator):
        part.set_state(state["generator"])
    elif isinstance(part, nn.Module):
        part.load_state_dict(state["weights"])
        own = transient(part)
        with torch.no_grad():
            for name, tensor in state[TRANSIENT].items():
                own[name].copy_(tensor)
    else:
        part.load_state_dict(state)


def _problems(part: Part, state: Any) -> Iterator[str]:
    """Why `state` is none of `part`, as far as that can be seen before it is loaded."""
    try:
        if isinstance(part, nn.Module):
            for name, own in (("weights", part.state_dict()), (TRANSIENT, transient(part))):
                yield from unlike(_tensors(state[name]), _tensors(own), name)
        elif isinstance(part, torch.optim.Optimizer):
            yield from misfits(part, state)
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        yield f"is incomplete ({type(error).__name__}: {error})"


def _tensors(state: Mapping[str, Any]) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}
