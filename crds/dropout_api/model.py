"""The base of every wire object: camelCase on the wire, snake_case in Python, nothing unknown accepted."""

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class Wire(BaseModel):
    """An immutable object with a JSON form."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True, use_attribute_docstrings=True,
        ser_json_inf_nan="null",
    )

    def to_wire(self) -> dict[str, object]:
        """The JSON object: camelCase keys, unset optionals left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    def to_json(self) -> str:
        return self.model_dump_json(by_alias=True, exclude_none=True)


class Observed(Wire):
    """A wire object that someone else wrote: unknown fields are dropped, so that old readers survive new writers."""

    model_config = ConfigDict(extra="ignore")
