"""A strategic merge patch on a pod template, as the API server computes it.

Mappings are merged by their keys and null removes a key. Lists are replaced, but those of merge_keys.json are merged:
an item of the patch changes the item with the same merge key, or is new. Directives: `$patch: replace` and `$patch:
delete` in a mapping or an item, `$retainKeys` in a mapping. The two kinds that only clients write who compute patches
($setElementOrder, $deleteFromPrimitiveList) are refused by name.
"""

import copy
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any, Final

from ltx2_job.errors import ConfigError, Problem

ROOT: Final = "PodTemplateSpec"
KEYS: Final[Mapping[str, Mapping[str, Mapping[str, str]]]] = json.loads(
    files("ltx2_operator").joinpath("merge_keys.json").read_bytes()
)
DIRECTIVE: Final = "$patch"
RETAIN: Final = "$retainKeys"


def merge(base: Mapping[str, Any], patch: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The patched pod template; neither argument is changed. `where` is the field that holds the patch.

    Raises ConfigError: an unknown directive, an item without its merge key, a list or mapping in place of the other.
    """
    return _mapping(base, patch, ROOT, where)


def _mapping(base: Mapping[str, Any], patch: Mapping[str, Any], kind: str, where: str) -> dict[str, Any]:
    for key in patch:
        if key.startswith("$") and key not in (DIRECTIVE, RETAIN):
            raise _refused(f"{where}.{key}", "is not supported", f"write {DIRECTIVE} or {RETAIN}, or the whole list")
    directive = patch.get(DIRECTIVE)
    if directive == "delete":
        return {}
    if directive not in (None, "replace"):
        raise _refused(f"{where}.{DIRECTIVE}", f"{directive!r}", "write delete or replace")
    own = {key: value for key, value in patch.items() if key not in (DIRECTIVE, RETAIN)}
    merged: dict[str, Any] = {} if directive == "replace" else copy.deepcopy(dict(base))
    if RETAIN in patch:
        kept = patch[RETAIN]
        if not isinstance(kept, list) or any(key not in kept for key in own):
            raise _refused(f"{where}.{RETAIN}", f"{kept!r}", f"list the keys that stay, at least {', '.join(own)}")
        merged = {key: value for key, value in merged.items() if key in kept}
    for key, value in own.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _value(merged.get(key), value, KEYS.get(kind, {}).get(key, {}), f"{where}.{key}")
    return merged


def _value(old: Any, new: Any, entry: Mapping[str, str], where: str) -> Any:
    """One value of a mapping. `old` is None where there is none."""
    merged = "merge" in entry
    if isinstance(new, list) is not (merged or isinstance(old, list)) and (entry or isinstance(old, list | dict)):
        wanted = "list" if merged or isinstance(old, list) else "mapping"
        raise _refused(where, f"{new!r} is no {wanted}"[:200], f"write a {wanted}")
    if (isinstance(old, dict) or (entry and not merged)) and not isinstance(new, dict):
        raise _refused(where, f"{new!r} is no mapping"[:200], "write a mapping")
    if isinstance(new, dict):
        return _mapping(old if isinstance(old, dict) else {}, new, entry.get("type", ""), where)
    if not merged:
        return copy.deepcopy(new)
    if entry["merge"] == "set":
        return [*(old or []), *(item for item in new if item not in (old or []))]
    return _items(old or [], new, entry, where)


def _items(old: Sequence[Any], new: Sequence[Any], entry: Mapping[str, str], where: str) -> list[Any]:
    """A list whose items have a merge key.

    Items of the patch keep the patch's order; an item that the patch does not name stands before the first of them
    that followed it in the old list, else behind all: new items come first.
    """
    key = entry["key"]
    directives: list[Mapping[str, Any]] = []
    items: list[Mapping[str, Any]] = []
    for index, item in enumerate(new):
        if not isinstance(item, dict):
            raise _refused(f"{where}[{index}]", f"{item!r} is no mapping", f"write {key} and what changes")
        if item.get(DIRECTIVE) not in (None, "delete", "replace"):
            raise _refused(f"{where}[{index}].{DIRECTIVE}", f"{item[DIRECTIVE]!r}", "write delete or replace")
        (directives if DIRECTIVE in item else items).append(item)
        if not isinstance(item.get(key), str | int) and item.get(DIRECTIVE) != "replace":
            raise _refused(f"{where}[{index}]", f"has no {key}", f"write the {key} of the item that changes")
    if any(item[DIRECTIVE] == "replace" for item in directives):
        return [_mapping({}, item, entry["type"], f"{where}[{index}]") for index, item in enumerate(items)]
    gone = [item[key] for item in directives]
    known = {item.get(key): item for item in old if item.get(key) not in gone}
    changed: dict[Any, Any] = {}
    for item in items:
        place = f"{where}[{key}={item[key]}]"
        before = changed.get(item[key], known.get(item[key], {}))
        changed[item[key]] = _mapping(before, item, entry["type"], place)
    return _ordered([one.get(key) for one in old], known, changed)


def _ordered(order: Sequence[Any], known: Mapping[Any, Any], changed: Mapping[Any, Any]) -> list[Any]:
    """Two sequences as one: see _items."""
    left = [name for name in known if name not in changed]
    merged = []
    for name, item in changed.items():
        while left and name in order and order.index(left[0]) < order.index(name):
            merged.append(known[left.pop(0)])
        merged.append(item)
    return [*merged, *(known[name] for name in left)]


def _refused(field: str, what: str, remedy: str) -> ConfigError:
    return ConfigError(Problem(field, what, remedy))
