"""Arguments of the built-in factories, typed so that the operator can refuse a misspelt one before any pod starts."""

from typing import Annotated, Literal

from pydantic import Field, JsonValue, ValidationError

from dropout_api.model import Wire
from dropout_api.spec import FactoryCall, JobSpec, Rate

Width = Annotated[int, Field(ge=1, le=65_536)]


class Arguments(Wire):
    """Arguments are Python keyword arguments, so they are spelt as Python spells them."""

    model_config = {"alias_generator": None}


class MlpArguments(Arguments):
    """Linear, ReLU, dropout for each hidden width, then a linear layer to the classes."""

    hidden: Annotated[list[Width], Field(min_length=1, max_length=32)] = [256, 256]
    dropout: Rate = 0.5


class CnnArguments(Arguments):
    """Blocks of convolution, batch norm, ReLU, max pooling and spatial dropout, then a dense layer with dropout."""

    channels: Annotated[list[Width], Field(min_length=1, max_length=8)] = [32, 64]
    dense: Width = 128
    spatial_dropout: Rate = 0.1
    dropout: Rate = 0.5


class SklearnArguments(Arguments):
    """A real data set that scikit-learn carries, standardised, split by a seeded permutation."""

    name: Literal["digits", "breast_cancer", "wine"]
    val_fraction: Annotated[float, Field(gt=0, lt=0.5)] = 0.15
    test_fraction: Annotated[float, Field(gt=0, lt=0.5)] = 0.15


class FashionMnistArguments(Arguments):
    """Fashion-MNIST from its four IDX files (gzipped or not) in a folder."""

    path: Annotated[str, Field(min_length=1)]
    limit: Annotated[int, Field(ge=100, le=60_000)] | None = None
    """Use this many of the training images."""
    val_fraction: Annotated[float, Field(gt=0, lt=0.5)] = 0.15


MODELS: dict[str, type[Arguments]] = {"mlp": MlpArguments, "cnn": CnnArguments}
DATA: dict[str, type[Arguments]] = {"sklearn": SklearnArguments, "fashion_mnist": FashionMnistArguments}


class ArgumentError(ValueError):
    """An argument or factory that cannot be; the message names the field and the remedy."""


def arguments(call: FactoryCall, table: dict[str, type[Arguments]], field: str) -> Arguments | None:
    """The typed arguments of a built-in, None for a user's own factory.

    Raises ArgumentError for an unknown built-in or a wrong argument.
    """
    if ":" in call.factory:
        return None
    if call.factory not in table:
        known = ", ".join(sorted(table))
        raise ArgumentError(f"spec.{field}.factory: no built-in '{call.factory}'; use one of {known} or 'package.module:callable'")
    try:
        return table[call.factory].model_validate(call.args)
    except ValidationError as error:
        raise ArgumentError(describe(error, f"spec.{field}.args", table[call.factory])) from None


def check_builtins(spec: JobSpec) -> None:
    """Raises ArgumentError when a built-in of `spec` does not exist or its arguments are wrong."""
    for call, table, field in ((spec.model, MODELS, "model"), (spec.data, DATA, "data")):
        if call is not None:  # not there in a job that trains nothing
            arguments(call, table, field)


def describe(error: ValidationError, prefix: str, model: type[Wire] | None = None) -> str:
    """One line per problem: the field's path, what is wrong with its value, and what would be right."""
    lines = []
    for problem in error.errors():
        path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in problem["loc"])
        known = f"; known: {', '.join(model.model_fields)}" if model and problem["type"] == "extra_forbidden" else ""
        what = "unknown field" if known else problem["msg"].removeprefix("Value error, ")
        lines.append(f"{prefix}{path}: {what}{known}{_given(problem['input'], problem['type'])}")
    return "; ".join(lines)


def _given(value: JsonValue, kind: str) -> str:
    return "" if kind in ("missing", "extra_forbidden", "value_error") else f" (given: {value!r:.60})"
