"""The reference of every key as Markdown: what `ltx2-job config reference` prints, and docs/configuration.md holds
with one more column, the tests that show each supported key at work.
"""

from collections.abc import Iterable, Mapping, Sequence
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
from ltx2_job.config.training import TrainingConfig
from ltx2_job.config.training_keys import ObjectiveKeys, OptimisationKeys, RegulariserKeys
from ltx2_job.config.validation_keys import ValidationKeys
from ltx2_job.config.values import OneOf

_HEAD = ("key", "type", "default", "source", "what it does", "status")
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


Tests = Mapping[str, Sequence[str]]
"""Dotted name of a key (`supported_keys`) -> what its cell says about the tests that show it at work."""


def supported_keys() -> dict[str, tuple[str, ...]]:
    """Every supported key -> its supported choices, () where it is no choice.

    Names are dotted as in the tables: `lora_rank`, `dataset.repeats`, `video.num_frames`, `audio.auto_split`.
    """
    models = ((TrainingConfig, ""), (DatasetConfig, "dataset."), (VideoOptions, "video."), (AudioOptions, "audio."))
    return {
        prefix + name: tuple(value for value in choices(info) if value not in facts(info).values)
        for model, prefix in models
        for name, info in model.model_fields.items()
        if facts(info).status == "supported" and not _is_block(info)
    }


def reference_markdown(tests: Tests | None = None) -> str:
    """Tables of all keys: config.json by group, then the dataset list with its video and audio blocks, then aliases.

    `tests`: adds a column with the tests of each supported key.
    """
    parts = ["## config.json"]
    parts += [_section(_sentence(group), group, "", tests=tests) for group in _GROUPS]
    parts.append("### Known keys without a setting behind them.\n\n" + _table(_outside(outside.TRAINING, ""), tests))
    parts.append("## multidatabackend.json\n\nA list; each entry is one dataset.")
    parts.append(_section("One dataset.", DatasetConfig, "", outside.DATASET, tests, "dataset."))
    parts.append(_section("The block `video`.", VideoOptions, "video.", outside.VIDEO, tests, "video."))
    parts.append(_section("The block `audio`.", AudioOptions, "audio.", outside.AUDIO, tests, "audio."))
    names = {**outside.ALIASES, **outside.DATASET_ALIASES}
    parts.append("## Aliases\n\n" + "\n".join(f"- `{alias}` = `{name}`" for alias, name in names.items()))
    return "\n\n".join(parts) + "\n"


def _sentence(group: type[BaseModel]) -> str:
    return (group.__doc__ or "").strip().splitlines()[0]


def _section(
    title: str,
    model: type[BaseModel],
    prefix: str,
    others: Mapping[str, Outside] | None = None,
    tests: Tests | None = None,
    scope: str = "",
) -> str:
    rows = [
        (*_row(prefix + name, info), "<br>".join((tests or {}).get(scope + name, ())))
        for name, info in model.model_fields.items()
    ]
    return f"### {title}\n\n" + _table([*rows, *_outside(others or {}, prefix)], tests)


def _table(rows: Iterable[tuple[str, ...]], tests: Tests | None) -> str:
    head = _HEAD if tests is None else (*_HEAD, "test")
    lines = [head, ("---",) * len(head), *((*row, "")[: len(head)] for row in rows)]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _row(name: str, info: FieldInfo) -> tuple[str, ...]:
    known = facts(info)
    return f"`{name}`", _type(info), _default(info), known.source, info.description or "", _status(info)


def _outside(known: Mapping[str, Outside], prefix: str) -> list[tuple[str, ...]]:
    status = {"idle": "accepted, no effect", "fixed": "fixed", "refused": "not offered"}
    return [
        (
            f"`{prefix}{name}`",
            "any" if item.form is None else _type(FieldInfo.from_annotation(item.form)),
            "" if item.value is None else f"`{item.value}`",
            "guide",
            item.does,
            f"{status[item.kind]}: {item.why}",
        )
        for name, item in known.items()
    ]


def _is_block(info: FieldInfo) -> bool:
    return isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel)


def _status(info: FieldInfo) -> str:
    known = facts(info)
    if _is_block(info):
        return "its keys are listed below"
    if known.part_of:
        return f"not supported yet, as `{known.part_of}`"
    if known.status == "later":
        return f"not supported yet: {known.why}"
    if not known.values:
        return "supported"
    names = choices(info)
    if len(known.values) <= _MANY:
        return "supported, but not yet: " + ", ".join(f"`{value}`" for value in known.values)
    return "supported: " + ", ".join(f"`{name}`" for name in names if name not in known.values) + "; others not yet"


def choices(info: FieldInfo) -> tuple[str, ...]:
    """The names that a key takes, supported or not; () where it is no choice."""
    for item in info.metadata:
        if isinstance(item, BeforeValidator) and isinstance(item.func, OneOf):
            return item.func.known
    kinds = get_args(info.annotation) if get_origin(info.annotation) in (Union, UnionType) else (info.annotation,)
    return tuple(str(value) for kind in kinds if get_origin(kind) is Literal for value in get_args(kind))


def _type(info: FieldInfo) -> str:
    names = choices(info)
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
