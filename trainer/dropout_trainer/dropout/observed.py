"""One forward in eval mode, watched: which layers run, in which order, and where what they answer goes."""

from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from dropout_trainer.dropout.places import layers
from dropout_trainer.gate import rng

SOFTMAX = ("softmax", "log_softmax")


@dataclass
class Forward:
    """What was seen."""

    ran: dict[str, int] = field(default_factory=dict)
    """Layers in the order in which they first answered."""
    last_norm: tuple[int, str] = (-1, "")
    """The last batch norm that answered, in the same order."""
    softmaxed: set[str] = field(default_factory=set)
    """Layers whose answer goes right into a softmax."""
    answers: set[str] = field(default_factory=set)
    """Layers whose answer is the model's."""
    embedded: set[str] = field(default_factory=set)
    """Layers whose answer is that of an embedding as it is, and dropout layers that get it."""


def observe(model: nn.Module, inputs: Tensor, watched: Set[str]) -> Forward:
    """Runs `model` on `inputs`, watching the layers named. Modes and random streams are afterwards as before."""
    seen = _Watch(dict(layers(model)), watched)
    with quietly(model), seen.hooked(), seen:
        answer = model(inputs)
    seen.forward.answers = {seen.origin[id(leaf)] for leaf in tree_leaves(answer) if id(leaf) in seen.origin}
    return seen.forward


def answer(model: nn.Module, inputs: Tensor, without: nn.Module | None = None) -> Tensor | None:
    """The model's first tensor in eval mode; `without`: with zeros in place of what that layer answers."""
    hook = without.register_forward_hook(_erase) if without is not None else None
    try:
        with quietly(model):
            return next((leaf for leaf in tree_leaves(model(inputs)) if isinstance(leaf, Tensor)), None)
    finally:
        if hook is not None:
            hook.remove()


@contextmanager
def quietly(model: nn.Module) -> Iterator[None]:
    """Eval mode without gradients; every module's mode and all random streams are afterwards as before."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad(), rng.preserved():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def _erase(module: nn.Module, args: Any, output: Any) -> Any:
    return _on_first(output, torch.zeros_like)


def _on_first(output: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Of a tuple the first element, as dropout takes it."""
    if isinstance(output, Tensor):
        return change(output)
    if type(output) is tuple and output and isinstance(output[0], Tensor):
        return (change(output[0]), *output[1:])
    return output


class _Watch(TorchFunctionMode):
    """Follows tensors by identity. In eval mode dropout answers the very tensor that it got, so a watched layer's answer is made
    another one, a view of it; tensors are kept, so that an id names one."""

    def __init__(self, modules: dict[str, nn.Module], watched: Set[str]) -> None:
        super().__init__()
        self.modules, self.watched = modules, watched
        self.forward = Forward()
        self.origin: dict[int, str] = {}
        self.embeddings: set[int] = set()
        self.kept: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        given = args[0] if args else (kwargs or {}).get("input")
        if name in SOFTMAX and id(given) in self.origin:
            self.forward.softmaxed.add(self.origin[id(given)])
        result = func(*args, **(kwargs or {}))
        if name == "embedding":
            self._keep(result, self.embeddings.add)
        return result

    @contextmanager
    def hooked(self) -> Iterator[None]:
        hooks = [module.register_forward_hook(self._answered(name)) for name, module in self.modules.items()]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _answered(self, name: str) -> Callable[..., Any]:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
            forward = self.forward
            forward.ran.setdefault(name, len(forward.ran))
            if isinstance(module, _BatchNorm):
                forward.last_norm = (forward.ran[name], name)
            if name not in self.watched:
                return output
            acted_on = args if isinstance(module, _DropoutNd) else (output,)
            if any(id(tensor) in self.embeddings for tensor in acted_on):
                forward.embedded.add(name)
            return _on_first(output, lambda tensor: self._mark(tensor, name))

        return hook

    def _mark(self, tensor: Tensor, name: str) -> Tensor:
        other = tensor.view(tensor.shape)
        self._keep(other, lambda key: self.origin.setdefault(key, name))
        if id(tensor) in self.embeddings:
            self.embeddings.add(id(other))  # a dropout layer may still follow
        return other

    def _keep(self, tensor: Tensor, note: Callable[[int], object]) -> None:
        self.kept.append(tensor)
        note(id(tensor))
