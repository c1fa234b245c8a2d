"""What arguments of built-in factories have in common."""

from typing import Annotated

from pydantic import Field

from dropout_api.model import Wire

Fraction = Annotated[float, Field(gt=0, lt=0.5)]
Uri = Annotated[str, Field(min_length=1, max_length=1000)]
Column = Annotated[str, Field(min_length=1, max_length=200)]
Width = Annotated[int, Field(ge=1, le=65_536)]


class Arguments(Wire):
    """Arguments are Python keyword arguments, so they are spelt as Python spells them."""

    model_config = {"alias_generator": None}
