"""The reference of every key as Markdown: what `ltx2-job config reference` prints and docs/configuration.md holds."""

from collections.abc import Iterable, Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator
from pydantic.fields import FieldInfo

from ltx2_job.config import outside
from ltx2_job.config.datasets import AudioOptions, DatasetConfig, VideoOptions
from ltx2_job.config.keys import facts
from ltx2_job.config.memory_keys import MemoryKeys, ScaleKeys
from ltx2_job.config.model_keys import AdapterKeys, DataKeys, ModelKeys
from ltx2_job.config.outside import Outside
from ltx2_job.config.training_keys import ObjectiveKeys, OptimisationKeys, RegulariserKeys
from ltx2_job.config.validation_keys import ValidationKeys
from ltx2_job.config.values import OneOf

_HEAD = "| key | type | default | source | what it does | status |\n|---|---|---|---|---|---|"
_GROUPS: tuple[type[BaseModel], ...] = (
    ModelKeys,
    AdapterKeys,
    DataKeys,
    OptimisationKeys,
    ObjectiveKeys,
    RegulariserKeys,
    MemoryKeys,
    ScaleKeys,
    ValidationKeys,
)
_BASIC = {bool: "true / false", int: "whole number", float: "number", str: "text"}
_MANY = 12  # more names than this are not listed in a cell


def reference_markdown() -> str:
    """Tables of all keys: config.json by group, then the dataset list with its video and audio blocks, then aliases."""
    parts = ["## config.json"]
    parts += [_section(_sentence(group), group, "") for group in _GROUPS]
    parts.append("### Known keys without a setting behind them.\n\n" + _table(_outside(outside.TRAINING, "")))
    parts.append("## multidatabackend.json\n\nA list; each entry is one dataset.")
    parts.append(_section("One dataset.", DatasetConfig, "", outside.DATASET))
    parts.append(_section("The block `video`.", VideoOptions, "video.", outside.VIDEO))
    parts.append(_section("The block `audio`.", AudioOptions, "audio.", outside.AUDIO))
    names = {**outside.ALIASES, **outside.DATASET_ALIASES}
    parts.append("## Aliases\n\n" + "\n".join(f"- `{alias}` = `{name}`" for alias, name in names.items()))
    return "\n\n".join(parts) + "\n"


def _sentence(group: type[BaseModel]) -> str:
    return (group.__doc__ or "").strip().splitlines()[0]


def _section(title: str, model: type[BaseModel], prefix: str, others: Mapping[str, Outside] | None = None) -> str:
    rows = [_row(prefix + name, info) for name, info in model.model_fields.items()]
    return f"### {title}\n\n" + _table([*rows, *_outside(others or {}, prefix)])


def _table(rows: Iterable[tuple[str, ...]]) -> str:
    lines = ("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)
    return "\n".join([_HEAD, *lines])


def _row(name: str, info: FieldInfo) -> tuple[str, ...]:
    known = facts(info)
    return f"`{name}`", _type(info), _default(info), known.source, info.description or "", _status(info)


def _outside(known: Mapping[str, Outside], prefix: str) -> list[tuple[str, ...]]:
    status = {"idle": "accepted, no effect", "fixed": "fixed", "refused": "not offered"}
    return [
        (
            f"`{prefix}{name}`",
            "any",
            "" if item.value is None else f"`{item.value}`",
            "guide",
            item.does,
            f"{status[item.kind]}: {item.why}",
        )
        for name, item in known.items()
    ]


def _status(info: FieldInfo) -> str:
    known = facts(info)
    if known.part_of:
        return f"not supported yet, as `{known.part_of}`"
    if known.status == "later":
        return f"not supported yet: {known.why}"
    if not known.values:
        return "supported"
    names = _names(info)
    if len(known.values) <= _MANY:
        return "supported, but not yet: " + ", ".join(f"`{value}`" for value in known.values)
    return "supported: " + ", ".join(f"`{name}`" for name in names if name not in known.values) + "; others not yet"


def _names(info: FieldInfo) -> tuple[str, ...]:
    for item in info.metadata:
        if isinstance(item, BeforeValidator) and isinstance(item.func, OneOf):
            return item.func.known
    return tuple(str(value) for value in get_args(info.annotation)) if get_origin(info.annotation) is Literal else ()


def _type(info: FieldInfo) -> str:
    names = _names(info)
    if names and len(names) <= _MANY:
        return " / ".join(f"`{name}`" for name in names)
    return "name" if names else _written(info.annotation)


def _written(kind: Any) -> str:
    if get_origin(kind) is Annotated:
        return _written(get_args(kind)[0])
    if get_origin(kind) is Literal:
        return " / ".join(f"`{value}`" for value in get_args(kind))
    if get_origin(kind) in (Union, UnionType):
        parts = [part for part in get_args(kind) if part is not NoneType]
        if {get_origin(part) for part in parts} >= {dict, list}:
            return "path or JSON" if str in parts else "JSON"
        return " / ".join(_written(part) for part in parts)
    if get_origin(kind) is list:
        return "list of texts" if get_args(kind) == (str,) else "WxH, or several"
    return _BASIC.get(kind, "object")


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    value = info.get_default(call_default_factory=True, validated_data={})
    if value is None or value == "" or isinstance(value, BaseModel):
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, list):
        return ", ".join(f"`{width}x{height}`" for width, height in value)
    if isinstance(value, float):
        return f"`{value:g}`"
    return f"`{value}`"
