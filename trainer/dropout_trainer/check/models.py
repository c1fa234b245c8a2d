"""Judges live modules: those that a user's callable returns, and those that a trusted factory builds for a file of weights."""

import inspect
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_model
from torch import nn

from dropout_api.verdict import CheckResult
from dropout_trainer.check import examples
from dropout_trainer.check.arguments import Asked
from dropout_trainer.check.usercode import border, find, usage
from dropout_trainer.gate.inputs import Call
from dropout_trainer.gate.local import Options, judge_module
from dropout_trainer.gate.target import Module
from dropout_trainer.gate.verdict import GateReport, could_not_run, failed, passed

FACTORY = "give the factory that built the model which was saved"
SAVE = "save it with safetensors.torch.save_model"


def options(asked: Asked) -> Options:
    return Options(batch_dim=asked.batch_dim, as_is=asked.as_is, require_export=asked.require_export)


def named(reference: str, asked: Asked) -> GateReport:
    """The module at `package.module:name`, or the one that this returns. Raises StageFailure Usage or UserCode."""
    module, example = build(reference)
    call = choose(module, example, asked.example, reference)
    _answers(module, call, reference, asked.as_is)
    return judge(module, call, options(asked))


def judge(module: nn.Module, call: Call, wanted: Options) -> GateReport:
    """As the gate's, and a module in training mode, left as it is, fails even where no layer of it minds."""
    report = judge_module(module, call, wanted)
    if not (wanted.as_is and module.training):
        return report
    return GateReport(checks=[failed("mode", "the model is in training mode", "call model.eval() first"), *report.checks])


def build(reference: str) -> tuple[nn.Module, Any]:
    """The module and the example that came with it, or None."""
    found = find(reference)
    if not isinstance(found, nn.Module):
        found = _called(reference, found)
    module, example = found if _is_pair(found) else (found, None)
    if not isinstance(module, nn.Module):
        wanted = "a torch.nn.Module, or a pair (module, example inputs)"
        raise usage(f"{reference} gives a {type(found).__name__}; it must give {wanted}")
    return module, example


def choose(module: nn.Module, example: Any, asked: str | None, reference: str) -> Call:
    """The example that was asked for, else the one that came with the module, else the module's own."""
    if asked is not None:
        return examples.named(asked)
    if example is not None:
        return examples.call_of(example)
    own = examples.own(module)
    if own is None:
        raise usage(f"{reference} came without example inputs: {examples.HOW}")
    return own


def with_weights(path: Path, asked: Asked) -> GateReport:
    """A .safetensors file in the module that --factory builds, every name and shape of which must fit."""
    if asked.factory is None:
        raise usage(f"{path} holds weights alone: name the callable that builds their module with --factory package.module:callable")
    module, example = build(asked.factory)
    weights = _load(module, path)
    if weights.outcome is not weights.outcome.PASSED:
        return GateReport(checks=[weights])
    call = choose(module, example, asked.example, asked.factory)
    _answers(module, call, asked.factory, asked.as_is)
    return GateReport(checks=[weights, *judge(module, call, options(asked)).checks])


def _load(module: nn.Module, path: Path) -> CheckResult:
    try:
        absent, unknown = load_model(module, path, strict=False)
    except (SafetensorError, OSError, ValueError) as error:
        return failed("weights", f"{path.name} is not readable as safetensors ({str(error)[:200]})", SAVE)
    except RuntimeError as error:  # of load_state_dict, for shapes that differ
        lines = [line.strip() for line in str(error).splitlines()[1:]] or [str(error)]
        return could_not_run("weights", f"the weights do not fit: {'; '.join(lines)}", FACTORY)
    lacks = [f"the file lacks {', '.join(sorted(absent)[:8])}"] if absent else []
    lacks += [f"the module has no {', '.join(sorted(unknown)[:8])}"] if unknown else []
    if lacks:
        return could_not_run("weights", f"the weights do not fit: {'; '.join(lacks)}", FACTORY)
    return passed("weights", f"every tensor of {path.name} has its place in the module, and none is left out")


def _called(reference: str, found: Any) -> Any:
    if not callable(found):
        raise usage(f"{reference} is a {type(found).__name__}: neither a torch.nn.Module nor something to call")
    try:
        inspect.signature(found).bind()
    except TypeError as error:
        raise usage(f"{reference} is called without arguments, and has {error}: write a function that takes none") from None
    except ValueError:  # written in C
        pass
    with border(reference):
        return found()


def _is_pair(found: Any) -> bool:
    return isinstance(found, tuple | list) and len(found) == 2 and isinstance(found[0], nn.Module)


def _answers(module: nn.Module, call: Call, reference: str, as_is: bool) -> None:
    """One forward before all checks: a model that cannot answer its example is a mistake in one of the two, and no verdict."""
    flags = {part: part.training for part in module.modules()}
    try:
        with border(f"{reference}: the model, given its example,"):
            if not as_is:
                module.eval()
            Module(module).seeded(call, 0)
    finally:
        for part, training in flags.items():
            part.training = training
