"""What the program changes in a configuration, and what it cannot do yet: plain records."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Correction:
    """A value of the guide that cannot work as written, and what is used instead."""

    field: str
    old: Any
    new: Any
    why: str

    def __str__(self) -> str:
        return f"{self.field} {self.old} → {self.new} ({self.why})"


@dataclass(frozen=True)
class Unsupported:
    """A known key or value whose feature is not built yet."""

    field: str
    value: Any
    why: str

    def __str__(self) -> str:
        return f"{self.field}: not supported yet: {self.value} ({self.why})"
