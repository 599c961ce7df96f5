"""What is known about a configuration key beside its type: where its default comes from and whether it is supported.

Every field of the configuration models is made by one of the functions below, so that the reference table, the check
of support and the list of known names all read the same place.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import Field
from pydantic.fields import FieldInfo

# Where a default comes from.
GUIDE: Final = "guide"  # the LTX Video 2 quick start and its trainer
OFFICIAL: Final = "official trainer"
OURS: Final = "this project"

# Values that ask for nothing, whatever the key; a key that holds text gets some of them as words.
_NO_EFFECT: Final = (None, "", False, 0, "none", "no", "false", "0")


@dataclass(frozen=True)
class Key:
    """The facts of one key.

    status: "supported" or "later" (known, its feature is not built yet; `why` says what it waits for).
    idle: further values of a later key that ask for nothing.
    values: single values of a supported key that are not built yet, each with its reason.
    part_of: the key that switches the feature on; while that one is off, this one has no effect.
    """

    source: str = OURS
    status: str = "supported"
    why: str = ""
    idle: tuple[Any, ...] = ()
    values: Mapping[str, str] = field(default_factory=dict)
    part_of: str = ""


def _field(default: Any, does: str, facts: Key, **limits: Any) -> Any:
    made = (
        Field(default_factory=default, description=does, **limits)
        if callable(default)
        else Field(default, description=does, **limits)
    )
    made.metadata.append(facts)
    return made


def key(
    default: Any,
    does: str,
    source: str = OURS,
    *,
    values: Mapping[str, str] | None = None,
    part_of: str = "",
    **limits: Any,
) -> Any:
    """A supported key. `default` may be a function of the fields before it; `limits` are pydantic's (ge, gt, le, …)."""
    return _field(default, does, Key(source, values=values or {}, part_of=part_of), **limits)


def later(
    default: Any,
    does: str,
    why: str,
    *,
    idle: tuple[Any, ...] = (),
    part_of: str = "",
    source: str = GUIDE,
    **limits: Any,
) -> Any:
    """A key whose feature is not built yet: any value that asks for something is reported as not supported yet."""
    return _field(default, does, Key(source, "later", why, idle, part_of=part_of), **limits)


def facts(info: FieldInfo) -> Key:
    """The facts of a model's field."""
    for item in info.metadata:
        if isinstance(item, Key):
            return item
    raise TypeError("a field of the configuration must be made by key or later")


def asks(info: FieldInfo, value: Any) -> bool:
    """Whether `value` asks for something, that is: is neither empty, nor the default, nor named as without effect."""
    if isinstance(info.default, bool):
        return bool(value != info.default)  # where true is the default, false is what asks for something
    if isinstance(value, dict) and not value:
        return False
    if isinstance(value, list):
        return any(item not in _NO_EFFECT for item in value)
    return all(value != nothing for nothing in (*_NO_EFFECT, *facts(info).idle, info.default))
