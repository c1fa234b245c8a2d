"""A misspelt or impossible argument is refused with the field, the value and the remedy."""

from typing import Any

import pytest

from dropout_api.builtins import ArgumentError, arguments, check_builtins
from dropout_api.builtins.models import CnnArguments
from dropout_api.spec import FactoryCall, JobSpec


def spec(**changes: Any) -> JobSpec:
    return JobSpec.model_validate({"model": {"factory": "mlp"}, "data": {"factory": "sklearn", "args": {"name": "digits"}}, **changes})


@pytest.mark.parametrize(("changes", "says"), [
    ({"model": {"factory": "mpl"}}, ["spec.model.factory", "no built-in 'mpl'", "cnn, lstm, mlp", "package.module:callable"]),
    ({"model": {"factory": "mlp", "args": {"hiden": [1]}}}, ["spec.model.args.hiden", "unknown field", "hidden, activation, dropout"]),
    ({"model": {"factory": "mlp", "args": {"hidden": [0]}}}, ["spec.model.args.hidden[0]", "given: 0"]),
    ({"model": {"factory": "mlp", "args": {"dropout": 1.0}}}, ["spec.model.args.dropout", "given: 1.0"]),
    ({"model": {"factory": "cnn", "args": {"spatialDropout": 0.1}}}, ["spec.model.args.spatialDropout", "spatial_dropout"]),
    ({"data": {"factory": "sklearn", "args": {}}}, ["spec.data.args.name"]),
    ({"data": {"factory": "sklearn", "args": {"name": "iris"}}}, ["spec.data.args.name", "'digits'"]),
    ({"data": {"factory": "fashion_mnist", "args": {"path": ""}}}, ["spec.data.args.path"]),
])
def test_the_message_names_field_and_remedy(changes: dict[str, Any], says: list[str]) -> None:
    with pytest.raises(ArgumentError) as error:
        check_builtins(spec(**changes))

    assert [word for word in says if word not in str(error.value)] == []


def test_a_users_own_factory_takes_any_arguments() -> None:
    assert arguments(FactoryCall(factory="clinic.model:network", args={"anything": [1]}), {}, "model") is None


def test_defaults_are_filled_in() -> None:
    assert arguments(FactoryCall(factory="cnn"), {"cnn": CnnArguments}, "model") == CnnArguments()


def test_long_values_are_cut_in_the_message() -> None:
    with pytest.raises(ArgumentError) as error:
        check_builtins(spec(model={"factory": "mlp", "args": {"hidden": "x" * 10_000}}))

    assert len(str(error.value)) < 500
