"""What is judged: something that answers calls, be it a live module or an exported program.

Both are run in the same way and without side effects on the caller: random streams are restored, inputs are copies.
"""

import logging
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import GraphModule, Interpreter, Node

from dropout_trainer.gate import rng
from dropout_trainer.gate.graph import location
from dropout_trainer.gate.inputs import Call
from dropout_trainer.gate.ops import op_name
from dropout_trainer.gate.outputs import DEFAULT_RELATIVE, Outputs, leaves
from dropout_trainer.gate.trace import VIEWS, Parting, Step, parting, same, watching

CLOCKS = ("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns")
STRIDE_SECONDS = 7919.37
QUANTISED = 5e-2
"""Dynamic quantisation takes one scale for the whole batch."""


class Target(ABC):
    """Answers calls, and can be looked into."""

    title: str
    """What it is called in evidence: the model, the program."""

    @property
    def rounding(self) -> float:
        """What rounding may change of an answer when it is computed beside other rows, in units of its largest value."""
        return DEFAULT_RELATIVE

    @abstractmethod
    def answer(self, call: Call) -> Any:
        """The raw output of one forward."""

    @abstractmethod
    def tensors(self) -> Mapping[str, Tensor]:
        """Every parameter, buffer and constant by name."""

    def place(self, calls: tuple[Call, Call], numbers: tuple[int, int], gradients: bool = False, rows: int | None = None) -> Parting | None:
        """As `part`; None also where looking that closely fails: a finding without its place is still a finding."""
        try:
            return self.part(calls, numbers, gradients, rows)
        except Exception:
            return None

    @abstractmethod
    def part(self, calls: tuple[Call, Call], numbers: tuple[int, int], gradients: bool = False, rows: int | None = None) -> Parting | None:
        """Where two runs of it go apart: two calls, each at its own seed and time. With `rows` the calls have that many rows and
        share the first one only, which is then all that counts. None when that cannot be told."""

    def generators(self) -> list[torch.Generator]:
        """Random generators of its own."""
        return []

    def run(self, call: Call, gradients: bool = False) -> Outputs:
        """The named leaves of one answer."""
        with torch.set_grad_enabled(gradients), quiet():
            return leaves(self.answer(call.copy()))

    def seeded(self, call: Call, number: int, gradients: bool = False) -> Outputs:
        """One answer under another seed of every stream and at another time; streams and clocks are put back."""
        with moved(number):
            return self.run(call, gradients)


@contextmanager
def moved(number: int) -> Iterator[None]:
    """Inside, all random streams have another seed and all clocks another time, for another `number`."""
    with rng.preserved(), ExitStack() as stack:
        rng.seed(7919 * number)
        for name in CLOCKS if number else ():
            real, shift = getattr(time, name), STRIDE_SECONDS * number
            moved_on = shift if not name.endswith("_ns") else int(shift * 1e9)
            stack.enter_context(mock.patch.object(time, name, lambda real=real, moved_on=moved_on: real() + moved_on))
        yield


@dataclass(frozen=True)
class Module(Target):
    """A live torch module, run as it is: nothing here changes its mode."""

    module: nn.Module
    title: str = "the model"

    def answer(self, call: Call) -> Any:
        with torch.compiler.set_stance("force_eager"):
            return self.module(*call.args, **call.kwargs)

    def tensors(self) -> Mapping[str, Tensor]:
        return {**dict(self.module.named_parameters(remove_duplicate=False)), **dict(self.module.named_buffers(remove_duplicate=False))}

    @property
    def rounding(self) -> float:
        quantised = any("quantiz" in type(module).__module__ for module in self.module.modules())
        return QUANTISED if quantised else super().rounding

    def generators(self) -> list[torch.Generator]:
        own = [value for module in self.module.modules() for value in vars(module).values()]
        return [value for value in own if isinstance(value, torch.Generator)]

    def part(self, calls: tuple[Call, Call], numbers: tuple[int, int], gradients: bool = False, rows: int | None = None) -> Parting | None:
        recorded: list[list[Step]] = []
        for call, number in zip(calls, numbers, strict=True):
            steps: list[Step] = []
            with watching(self.module, steps.append, tensors=True):
                self.seeded(call, number, gradients)
            recorded.append(steps)
        return parting(recorded[0], recorded[1], rows)


@dataclass(frozen=True)
class Program(Target):
    """An exported program. It has neither train() nor eval(): its mode was fixed when it was exported."""

    program: ExportedProgram
    title: str = "the program"

    @cached_property
    def module(self) -> GraphModule:
        with quiet():
            module: Any = self.program.module()
            return module  # type: ignore[no-any-return]

    @cached_property
    def decomposed(self) -> ExportedProgram:
        """In core ATen ops, where every dropout that is off has vanished.

        torch fails at some of its own decompositions for sizes that may change (attention that is transposed before a view); then
        every op stays that torch's table would take apart, and only buffers that are written are made visible.
        """
        with quiet(), torch.no_grad():
            try:
                program: ExportedProgram = self.program.run_decompositions()
            except Exception:
                program = self.program.run_decompositions({})
            return program

    def answer(self, call: Call) -> Any:
        return self.module(*call.args, **call.kwargs)

    def tensors(self) -> Mapping[str, Tensor]:
        constants = {name: value for name, value in self.program.constants.items() if isinstance(value, Tensor)}
        return {**constants, **self.module.state_dict(), **dict(self.module.named_buffers())}

    def part(self, calls: tuple[Call, Call], numbers: tuple[int, int], gradients: bool = False, rows: int | None = None) -> Parting | None:
        values: list[dict[Node, Any]] = []
        for call, number in zip(calls, numbers, strict=True):
            recorder = _Recorder(self.module)
            with moved(number), torch.set_grad_enabled(gradients), quiet():
                copied = call.copy()
                recorder.run(*torch.utils._pytree.tree_leaves((copied.args, copied.kwargs)), enable_io_processing=False)
            values.append(recorder.values)
        for node, value in values[0].items():
            other = values[1].get(node)
            inputs = [source for source in node.all_input_nodes if source in values[0]]
            moves = rows is not None and (node.op != "call_function" or op_name(node.target) in VIEWS)
            if not (moves or same(value, other, rows)) and all(same(values[0][source], values[1].get(source), rows) for source in inputs):
                return Parting(location(node), False)
        return None


class _Recorder(Interpreter):
    """Keeps every node's value."""

    def __init__(self, module: GraphModule) -> None:
        super().__init__(module, garbage_collect_values=False)
        self.values: dict[Node, Any] = {}

    def run_node(self, n: Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, Tensor):
            self.values[n] = value.detach().clone()
        return value


@contextmanager
def quiet() -> Iterator[None]:
    """torch warns and logs about its own internals while it traces or copies a graph; nobody who reads the log can act on that."""
    logger, level = logging.getLogger("torch"), logging.getLogger("torch").level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            logger.setLevel(level)
