"""What is said of a wrong manifest."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One mistake: the field's path in the manifest, and what is wrong with it and would be right."""

    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"
