"""From pydantic's errors to ours: dotted field, what is wrong with which value, what to write instead."""

import difflib
import re
from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError

from ltx2_job.errors import Problem

_LIMITS = {
    "greater_than": ("gt", "must be above {}"),
    "greater_than_equal": ("ge", "must be {} or more"),
    "less_than": ("lt", "must be below {}"),
    "less_than_equal": ("le", "must be {} or less"),
}


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that looks most like `name`, if any looks like it."""
    found = difflib.get_close_matches(name.lower(), list(known), n=1, cutoff=0.6)
    return found[0] if found else None


def unknown_value(value: str, known: Iterable[str]) -> tuple[str, str]:
    """Message and remedy for a value that is none of the choices."""
    names = list(known)
    close = nearest(value, names)
    listed = ", ".join(names) if len(names) <= 12 else ", ".join([*names[:12], "…"])
    return f"unknown value {value!r}", f"did you mean {close}?" if close else f"write one of {listed}"


def from_validation(error: ValidationError, prefix: str, blocks: Iterable[str] = ()) -> list[Problem]:
    """One problem per field of a pydantic error.

    prefix: what stands before the field, for example "datasets[0]."; blocks: names of nested objects, whose fields are
    named with a dot.
    """
    nested = set(blocks)
    found: dict[str, Problem] = {}
    for item in error.errors(include_url=False):
        if item["type"] == "default_factory_not_called":
            continue  # a default that waits for a field which is itself reported
        place = [str(part) for part in item["loc"]]
        field = prefix + ".".join(place[: 2 if place and place[0] in nested else 1])
        found.setdefault(field, Problem(field, *_message(item)))
    return list(found.values())


def from_value(error: ValidationError, field: str) -> list[Problem]:
    """The problem of a value that was read alone."""
    return [Problem(field, *_message(item)) for item in error.errors(include_url=False)[:1]]


def _message(item: Any) -> tuple[str, str]:
    kind, context, value = item["type"], item.get("ctx", {}), item.get("input")
    if kind == "ltx2_choice":
        return unknown_value(context["raw"], context["known"])
    if kind == "literal_error":
        return unknown_value(str(value), re.findall(r"'([^']*)'", context["expected"]))
    if kind in _LIMITS:
        name, text = _LIMITS[kind]
        limit = context[name]
        return f"{text.format(int(limit) if limit == int(limit) else limit)}, not {value!r}", ""
    if kind == "missing":
        return "is required", "write it"
    if kind == "string_too_short":
        return "must not be empty", ""
    message = str(item["msg"])
    return (message if kind == "ltx2" else f"{message[0].lower()}{message[1:]}, not {value!r}"), ""
