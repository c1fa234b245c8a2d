"""From a `FactoryCall` to data and a model: a built-in by its name, a user's own by `package.module:callable`.

The convention for users' factories. Both are called with `args` as keyword arguments. A data factory whose signature
names `seed` gets the seed of the split; it returns a `dropout_trainer.data.Data`. A model factory whose signature names
`input_shape` (a tuple, without the batch dimension), `num_outputs` or `num_classes` (the same) gets what the data
and the loss imply; it returns a torch.nn.Module that answers [N, ...] with logits or values [N, num_outputs]. What
`args` says goes before what we would give.
"""

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from dropout_api.builtins import ArgumentError, arguments
from dropout_api.builtins.arguments import Arguments
from dropout_api.builtins.data import DATA
from dropout_api.builtins.models import MODELS, CnnArguments, LstmArguments, MlpArguments, ResnetArguments, TransformerArguments
from dropout_api.names import ExitCode
from dropout_api.spec import DataSpec, FactoryCall, ModelSpec
from dropout_trainer.data import Data, problems
from dropout_trainer.errors import StageFailure
from dropout_trainer.models.cnn import cnn
from dropout_trainer.models.interface import Interface, interface
from dropout_trainer.models.lstm import lstm
from dropout_trainer.models.mlp import mlp
from dropout_trainer.models.resnet import resnet
from dropout_trainer.models.transformer import transformer
from dropout_trainer.readers import read
from dropout_trainer.train.usercode import user_code

REMEDY = "is it in spec.image, or in a folder that PYTHONPATH names in spec.podTemplate.env?"


def build_data(call: DataSpec, seed: int) -> Data:
    """The data that `call` describes, checked; `seed` decides the split.

    Raises StageFailure when the factory cannot be found or called, or returns something that cannot be trained on.
    """
    typed = _checked(call, "data")
    data = read(call.factory, typed, seed) if typed is not None else _call(call, "data", {"seed": seed})
    if not isinstance(data, Data):
        wanted = "must return a dropout_trainer.data.Data"
        raise StageFailure("UserCode", f"spec.data.factory: {call.factory} {wanted}, not {_type(data)}", ExitCode.USER_CODE)
    if found := problems(data):
        raise StageFailure("DataInvalid", f"spec.data.factory: {call.factory} returned {'; '.join(found)}", ExitCode.DATA_INVALID)
    return data


def build_model(call: ModelSpec, data: Data, outputs: int) -> nn.Module:
    """The untrained model that `call` describes, for inputs like those of `data`; it answers [N, outputs].

    Raises StageFailure when the factory cannot be found or called, or returns something else than a module.
    """
    typed = _checked(call, "model")
    if typed is not None:
        return _built_in(typed, interface(data, outputs))
    model = _call(call, "model", {"input_shape": data.input_shape, "num_classes": outputs, "num_outputs": outputs})
    if not isinstance(model, nn.Module):
        wanted = "must return a torch.nn.Module"
        raise StageFailure("UserCode", f"spec.model.factory: {call.factory} {wanted}, not {_type(model)}", ExitCode.USER_CODE)
    return model


def _built_in(typed: Arguments, seen: Interface) -> nn.Module:
    try:
        match typed:
            case MlpArguments():
                return mlp(typed, seen)
            case CnnArguments():
                return cnn(typed, seen)
            case ResnetArguments():
                return resnet(typed, seen)
            case TransformerArguments():
                return transformer(typed, seen)
            case LstmArguments():
                return lstm(typed, seen)
    except ValueError as error:
        raise _invalid(f"spec.model.factory: {error}") from None
    raise NotImplementedError(type(typed).__name__)


def _checked(call: FactoryCall, field: str) -> Arguments | None:
    try:
        return arguments(call, MODELS if field == "model" else DATA, field)
    except ArgumentError as error:
        raise _invalid(str(error)) from None


def _call(call: FactoryCall, field: str, offered: Mapping[str, object]) -> object:
    factory = _resolve(call.factory, field)
    given: dict[str, Any] = dict(call.args)
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):  # some callables written in C have none
        signature = None
    if signature is not None:
        given = {name: value for name, value in offered.items() if name in signature.parameters} | given
        try:
            signature.bind(**given)
        except TypeError as error:
            raise _invalid(f"spec.{field}.args: {call.factory} {error}; its signature is {signature}") from None
    with user_code(f"spec.{field}.factory: {call.factory} raised", call.factory):
        return factory(**given)


def _resolve(path: str, field: str) -> Callable[..., object]:
    module_name, _, name = path.partition(":")
    with user_code(f"spec.{field}.factory: importing {module_name} raised", path):
        try:
            found: object = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
                raise
            raise _invalid(f"spec.{field}.factory: there is no module {error.name}; {REMEDY}") from None
    for part in name.split("."):
        if not hasattr(found, part):
            raise _invalid(f"spec.{field}.factory: module {module_name} has no {name}")
        found = getattr(found, part)
    if not callable(found):
        raise _invalid(f"spec.{field}.factory: {path} is {_type(found)}, which cannot be called")
    return found


def _invalid(message: str) -> StageFailure:
    return StageFailure("SpecInvalid", message, ExitCode.SPEC_INVALID)


def _type(value: object) -> str:
    return f"a {type(value).__name__}"
