"""Watches the ops that a live model runs: which, with what arguments, in which layer, from which line of whose code.

This sees what an export does not: models that cannot be exported, and the branches that an export leaves behind.
"""

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from dropout_api.verdict import Location
from dropout_trainer.gate.ops import named, op_name
from dropout_trainer.gate.outputs import same_bits

LIBRARIES = (str(Path(torch.__file__).parent), str(Path(__file__).parents[1]))
"""Code that is never the user's: torch's, and this package's own."""
VIEWS = frozenset((
    "aten.view", "aten._unsafe_view", "aten.permute", "aten.transpose", "aten.t", "aten.expand", "aten.select", "aten.slice",
    "aten.unsqueeze", "aten.squeeze", "aten.clone", "aten.detach", "aten.alias", "aten.split", "aten.unbind", "aten.cat", "aten.stack",
    "aten.as_strided", "aten._to_copy", "aten.index_select", "aten.flip", "aten._reshape_alias", "aten.unfold",
))
"""Ops that move values and change none."""


EMPTY = frozenset(("aten.empty", "aten.empty_like", "aten.new_empty", "aten.empty_strided", "aten.new_empty_strided"))
"""Ops that give memory as it happens to be."""


@dataclass(frozen=True)
class Step:
    """One op that ran."""

    target: Any
    given: dict[str, Any]
    """Its arguments by schema name."""
    layer: str
    source: str
    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()

    @property
    def where(self) -> Location:
        return Location(layer=self.layer, op=op_name(self.target), source=self.source)


@dataclass
class Layers:
    """Which module is running, by name. Modules that no parent has registered are called by their class."""

    names: dict[int, str]
    root: str
    stack: list[str] = field(default_factory=list)
    own: int = 0
    """How many of torch's own functions that draw masks are running."""

    @classmethod
    def of(cls, model: nn.Module) -> "Layers":
        return cls({id(module): name for name, module in model.named_modules() if name}, type(model).__name__)

    @contextmanager
    def watched(self) -> Iterator[None]:
        before = register_module_forward_pre_hook(lambda module, _: self.stack.append(self.name(module)))
        after = register_module_forward_hook(self._leave, always_call=True)
        try:
            yield
        finally:
            before.remove()
            after.remove()
            self.stack.clear()

    def _leave(self, *_: Any) -> None:
        self.stack.pop()

    def name(self, module: nn.Module) -> str:
        kind = type(module).__name__
        return self.names.get(id(module)) or (kind if kind == self.root else f"{kind} (unregistered)")

    @property
    def current(self) -> str:
        return self.stack[-1] if self.stack else self.root


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    supports_higher_order_operators = True

    def __init__(self, layers: Layers, see: Callable[[Step], None], tensors: bool, raw: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.layers, self.see, self.tensors, self.raw = layers, see, tensors, raw

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.higher_order.cond:
            predicate, true, false, operands = args
            with self:
                return (true if bool(predicate) else false)(*operands)
        inputs = _tensors(args, kwargs, self.raw) if self.tensors else ()
        answer = func(*args, **kwargs)
        if self.tensors and not self.raw and op_name(func) in EMPTY:
            answer.zero_()  # or two runs would differ by what the memory held before
        outputs = _tensors(answer, {}, self.raw) if self.tensors else ()
        if not (self.raw and self.layers.own):
            self.see(Step(func, named(func, args, kwargs), self.layers.current, _source(), inputs, outputs))
        return answer


FUNCTIONS = {
    "dropout": torch.ops.aten.dropout.default, "dropout1d": torch.ops.aten.feature_dropout.default,
    "dropout2d": torch.ops.aten.feature_dropout.default, "dropout3d": torch.ops.aten.feature_dropout.default,
    "alpha_dropout": torch.ops.aten.alpha_dropout.default, "feature_alpha_dropout": torch.ops.aten.feature_alpha_dropout.default,
    "rrelu": torch.ops.aten.rrelu.default, "scaled_dot_product_attention": torch.ops.aten.scaled_dot_product_attention.default,
}
"""Functions that people call, by the op that they are; below them only what they are made of is seen."""
OWN = frozenset((*FUNCTIONS, "multi_head_attention_forward", "lstm", "gru", "rnn_tanh", "rnn_relu", "native_dropout"))
"""Functions in which torch itself draws masks, and scales them."""


class _WatchFunctions(TorchFunctionMode):
    def __init__(self, layers: Layers, see: Callable[[Step], None] | None) -> None:
        super().__init__()
        self.layers, self.see = layers, see

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, getattr(func, "__name__", "")
        if self.see is not None and name in FUNCTIONS:
            self.see(Step(FUNCTIONS[name], _given(func, FUNCTIONS[name], args, kwargs), self.layers.current, _source()))
        self.layers.own += name in OWN
        try:
            return func(*args, **kwargs)
        finally:
            self.layers.own -= name in OWN


def _given(func: Any, target: Any, args: Any, kwargs: Any) -> dict[str, Any]:
    """Arguments by schema name, whose `train` python's functions call `training`."""
    try:
        bound = inspect.signature(func).bind(*args, **kwargs)
    except (TypeError, ValueError):  # it is torch's own builtin
        return named(target, args, kwargs)
    bound.apply_defaults()
    schema = {argument.name for argument in target._schema.arguments}
    rename = {"training": "train"} if "train" in schema else {}
    return named(target, (), {rename.get(key, key): value for key, value in bound.arguments.items()})


@contextmanager
def watching(model: nn.Module, see: Callable[[Step], None], tensors: bool = False, raw: bool = False) -> Iterator[None]:
    """Calls `see` for every op that runs inside; with copies of its tensors or, `raw`, with the tensors themselves, but then for
    none of those of which torch's own dropout is made.

    Inside, compiled functions run as they were written.
    """
    layers = Layers.of(model)
    with layers.watched(), torch.compiler.set_stance("force_eager"), _Watch(layers, see, tensors or raw, raw), ExitStack() as stack:
        if not tensors:
            stack.enter_context(_WatchFunctions(layers, None if raw else see))
        yield


def _tensors(args: Any, kwargs: Any, raw: bool) -> tuple[Tensor, ...]:
    found = torch.utils._pytree.tree_leaves((args, kwargs))
    if raw:
        return tuple(leaf for leaf in found if isinstance(leaf, Tensor))
    with torch.no_grad():
        return tuple(leaf.detach().clone() for leaf in found if isinstance(leaf, Tensor) and leaf.layout == torch.strided)


def _source() -> str:
    """The innermost line that is neither torch's nor ours, while it is still within the model's forward."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(LIBRARIES[1]) and frame.f_code.co_name == "answer":
            return ""
        if not file.startswith((*LIBRARIES, "<")) and "/torch/" not in file:
            return f"{Path(file).name} line {frame.f_lineno}, in {frame.f_code.co_name}"[:160]
        frame = frame.f_back
    return ""


@dataclass(frozen=True)
class Parting:
    """The first op at which two runs went apart although it was given the same tensors."""

    where: Location
    outside: bool
    """Whether it is an op that draws nothing: then a value came from outside of torch, as from numpy, random or time."""


def parting(one: list[Step], other: list[Step], rows: int | None = None) -> Parting | None:
    """Where two recorded runs went apart. With `rows` only the first row of what has that many rows is compared."""
    for left, right in zip(one, other, strict=False):
        if left.target is not right.target:
            return Parting(left.where, True)
        same_inputs = all(same(a, b, rows) for a, b in zip(left.inputs, right.inputs, strict=False))
        same_outputs = all(same(a, b, rows) for a, b in zip(left.outputs, right.outputs, strict=False))
        if op_name(left.target) in VIEWS and rows is not None:
            continue
        if not same_outputs and (same_inputs or (rows is None and _fresh(left, right, one))):
            drawn = torch.Tag.nondeterministic_seeded in getattr(left.target, "tags", ())
            return Parting(left.where, not drawn)
    return None


def _fresh(left: Step, right: Step, run: list[Step]) -> bool:
    """Whether an input that differs is the output of no earlier op: it came from outside of torch."""
    earlier = [output for step in run[: next(i for i, step in enumerate(run) if step is left)] for output in step.outputs]
    differing = [a for a, b in zip(left.inputs, right.inputs, strict=False) if not same(a, b, None)]
    return bool(differing) and not any(a.shape == out.shape and torch.equal(a, out) for a in differing for out in earlier)


def same(one: Any, other: Any, rows: int | None = None) -> bool:
    """Bit for bit; with `rows`, of what has that many rows, the first row within rounding."""
    if not (isinstance(one, Tensor) and isinstance(other, Tensor)) or one.shape != other.shape or one.dtype != other.dtype:
        return type(one) is type(other) and not isinstance(one, Tensor) and bool(one == other)
    if rows is not None and one.dim() and len(one) == rows and not one.is_complex():
        scale = float(one.abs().max()) if one.is_floating_point() and one.numel() else 0.0
        return bool(torch.allclose(one[0].double(), other[0].double(), rtol=1e-3, atol=1e-6 + 1e-3 * scale, equal_nan=True))
    return same_bits(one, other)
