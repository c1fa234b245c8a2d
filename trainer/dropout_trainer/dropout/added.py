"""Dropout that a plan adds to a layer, by a forward hook: no parameter gets another name, so a state dict stays what it was.

The hooks are functions of this module and find everything on the layer that they are called for, so a copied model is as good as
the first.
"""

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from dropout_api.dropout import DropoutAction
from dropout_api.names import ExitCode
from dropout_trainer.dropout.layers import EmbeddingDropout, ShapeError
from dropout_trainer.errors import StageFailure

ADDED = {DropoutAction.WRAP: "plan_wrap", DropoutAction.INSERT: "plan_dropout"}
"""Attribute of a layer that holds what was added to it."""
Hook = Callable[[nn.Module, tuple[Any, ...], dict[str, Any], Any], Any]


def add(host: nn.Module, action: DropoutAction, dropout: nn.Module) -> None:
    """Lets `dropout` act on the output of `host`; what was added for the same action before is replaced.

    With a leaf it is a submodule with a mode of its own: for MC dropout a norm is in eval mode and the dropout behind it is not. A
    module that has children may call them one after another, as nn.Sequential does, which can be empty; there it is no submodule and
    follows the mode of the module.
    """
    name = ADDED[action]
    parts = any(child not in ADDED.values() for child, _ in host.named_children())
    if not parts and not isinstance(host, nn.Sequential):
        host.add_module(name, dropout)
        dropout.train(host.training)
    else:
        vars(host)[name] = dropout
    if HOOKS[action] not in host._forward_hooks.values():
        host.register_forward_hook(HOOKS[action], with_kwargs=True)


def added_to(host: nn.Module) -> Iterator[tuple[DropoutAction, nn.Module]]:
    """What was added to a layer and acts there, in the mode that it would have in a forward."""
    for action, name in ADDED.items():
        if isinstance(getattr(host, name, None), nn.Module) and HOOKS[action] in host._forward_hooks.values():
            yield action, _current(host, action)


def _insert(host: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
    return _drop(host, _current(host, DropoutAction.INSERT), output)


def _wrap(host: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
    dropout = _current(host, DropoutAction.WRAP)
    if isinstance(dropout, EmbeddingDropout) and isinstance(host, nn.Embedding):
        return dropout(output, args[0] if args else kwargs["input"], host.num_embeddings)
    return _drop(host, dropout, output)


HOOKS: dict[DropoutAction, Hook] = {DropoutAction.INSERT: _insert, DropoutAction.WRAP: _wrap}


def _current(host: nn.Module, action: DropoutAction) -> nn.Module:
    dropout: nn.Module = getattr(host, ADDED[action])
    if ADDED[action] in vars(host) and dropout.training != host.training:
        dropout.train(host.training)
    return dropout


def _drop(host: nn.Module, dropout: nn.Module, output: Any) -> Any:
    """Of a tuple, as recurrent layers and attention answer, the first element."""
    try:
        match output:
            case Tensor():
                return dropout(output)
            case PackedSequence() if isinstance(dropout, nn.Dropout | nn.AlphaDropout):  # it has no rows to drop anything else of
                return output._replace(data=dropout(output.data))
            case tuple() if output and not isinstance(output, PackedSequence) and isinstance(output[0], Tensor | PackedSequence):
                first = _drop(host, dropout, output[0])
                rest = output[1:]
                return type(output)(first, *rest) if hasattr(output, "_fields") else (first, *rest)
    except ShapeError as error:
        message = f"spec.dropout.layers: behind {type(host).__name__}: {error}"
        raise StageFailure("SpecInvalid", message, ExitCode.SPEC_INVALID) from None
    message = (
        f"spec.dropout.layers: {type(host).__name__} answers {type(output).__name__}, but dropout of this kind can be added to a tensor or "
        "to the first of a tuple alone; match a layer inside of it"
    )
    raise StageFailure("SpecInvalid", message, ExitCode.SPEC_INVALID)
