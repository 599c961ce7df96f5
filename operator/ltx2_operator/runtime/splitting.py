"""One status, two managers: numbers that go by, and everything else.

Server-side apply keeps the two apart. `ltx2-operator` writes what decides; `ltx2-progress` writes what a page of
numbers said, rarely. Both name the resourceVersion that was read: it is the only fence of an apply. Each always sends
all of its fields: one left out of an apply is removed.
"""

from collections.abc import Mapping
from typing import Any, Final

from ltx2_operator.conditions import get_condition

OPERATOR: Final = "ltx2-operator"
PROGRESS: Final = "ltx2-progress"
PROGRESS_FIELDS: Final = ("progress", "progressText", "eta", "etaTime")
PROGRESS_CONDITION: Final = "Progressing"
PROGRESS_EVERY: Final = 30.0  # seconds between two writes of one run's numbers

Status = Mapping[str, Any]


def deciding(status: Status) -> dict[str, Any]:
    """The operator's part."""
    part = {key: value for key, value in status.items() if key not in PROGRESS_FIELDS}
    if "conditions" in part:
        part["conditions"] = [one for one in part["conditions"] if one["type"] != PROGRESS_CONDITION]
    return part


def passing(status: Status) -> dict[str, Any]:
    """The part of numbers."""
    part = {key: status[key] for key in PROGRESS_FIELDS if key in status}
    condition = get_condition(status.get("conditions") or [], PROGRESS_CONDITION)
    return part | ({"conditions": [condition]} if condition else {})


def flipped(old: Status, new: Status) -> bool:
    """Whether the condition Progressing says something else: that is told at once."""

    def words(status: Status) -> tuple[Any, Any]:
        condition = get_condition(status.get("conditions") or [], PROGRESS_CONDITION) or {}
        return condition.get("status"), condition.get("reason")

    return words(old) != words(new)
