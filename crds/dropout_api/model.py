"""The base of every wire object: camelCase on the wire, snake_case in Python, nothing unknown accepted."""

from collections.abc import Collection, Iterator, Mapping
from typing import ClassVar, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, model_validator
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


class Restriction(NamedTuple):
    """A field that only some kinds use, as the wire has it."""

    field: str
    default: object
    choice: str
    """The field that names the kind."""
    kinds: Collection[str]

    @property
    def words(self) -> str:
        """For who sets it beside another kind."""
        return f"{self.field}: goes with {self.choice} {' or '.join(self.kinds)} alone"


class OneOfSeveral(Wire):
    """What comes in kinds, of which each uses some of the fields. One that is set where nothing uses it would promise what does not
    happen, so it is refused; a default may be written out, as the API server does."""

    CHOICE: ClassVar[str]
    """The field that names the kind."""
    USED_BY: ClassVar[Mapping[str, Collection[str]]]
    """By field, the kinds that use it; every kind uses the others."""

    @classmethod
    def restrictions(cls) -> Iterator[Restriction]:
        for field, kinds in cls.USED_BY.items():
            yield Restriction(to_camel(field), cls.model_fields[field].default, cls.CHOICE, kinds)

    @model_validator(mode="after")
    def _nothing_unused(self) -> Self:
        given = self.to_wire()
        for restriction in self.restrictions():
            if given[self.CHOICE] not in restriction.kinds and given[restriction.field] != restriction.default:
                raise ValueError(restriction.words)
        return self


class Observed(Wire):
    """A wire object that someone else wrote: unknown fields are dropped, so that old readers survive new writers."""

    model_config = ConfigDict(extra="ignore")
