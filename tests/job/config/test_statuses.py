"""Every key by its status, generated from the models: what asks for more than there is, is named; nothing else is."""

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from ltx2_job.config import AudioOptions, DatasetConfig, TrainingConfig, VideoOptions, outside, resolve
from ltx2_job.config.keys import asks, facts
from ltx2_job.config.reference import choices
from ltx2_job.errors import ConfigError

CLIPS = {"id": "clips", "instance_data_dir": "datasets/videos"}
MODELS = {"": TrainingConfig, "datasets[0].": DatasetConfig, "datasets[0].video.": VideoOptions}
MODELS["datasets[0].audio."] = AudioOptions
OUTSIDE = {"": outside.TRAINING, "datasets[0].": outside.DATASET, "datasets[0].video.": outside.VIDEO}
OUTSIDE["datasets[0].audio."] = outside.AUDIO
NOTHING = (None, "", False, 0, "none", "no")


def given(place: str, **keys: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """config.json and the datasets with these keys at a place."""
    if not place:
        return keys, [CLIPS]
    block = place.removeprefix("datasets[0].").rstrip(".")
    return {}, [{**CLIPS, **({block: keys} if block else keys)}]


def fields(status: str) -> Iterator[Any]:
    for place, model in MODELS.items():
        for name, info in model.model_fields.items():
            if facts(info).status == status:
                yield pytest.param(place, name, info, id=f"{place}{name}")


def asking(info: FieldInfo) -> Any:
    """A value of the field's type that asks for something."""
    known = facts(info)
    if known.values:
        return next(iter(known.values))
    read = TypeAdapter(info.rebuild_annotation())
    for value in (*choices(info), True, False, 1, 2, 3, 0.5, "x", {"a": 1}):
        try:
            typed = read.validate_python(value)
        except ValidationError:
            continue
        if asks(info, typed):
            return value
    raise AssertionError("no value asks for anything")


def named(place: str, **keys: Any) -> list[str]:
    """The keys that are not supported yet, which block a run, each with its reason."""
    found = resolve(*given(place, **keys))
    if found.unsupported:
        with pytest.raises(ConfigError) as error:
            found.require_supported()
        for line, item in zip(str(error.value).splitlines(), found.unsupported, strict=True):
            assert line.startswith(f"{item.field}: not supported yet: ") and item.why in line
    return [item.field for item in found.unsupported]


@pytest.mark.parametrize(("place", "name", "info"), fields("later"))
def test_what_comes_later_is_named_where_it_asks(place: str, name: str, info: FieldInfo) -> None:
    """A detail of a feature is not: while that is off it asks for nothing, and while it is on, that is named."""
    switch, value = facts(info).part_of, asking(info)
    if not switch:
        assert named(place, **{name: value}) == [place + name]
        return
    assert named(place, **{name: value}) == []
    on = asking(MODELS[place].model_fields[switch])
    assert named(place, **{name: value, switch: on}) == [place + switch]


@pytest.mark.parametrize(("place", "name", "info"), fields("later"))
def test_what_comes_later_is_silent_where_it_asks_for_nothing(place: str, name: str, info: FieldInfo) -> None:
    default = info.get_default(call_default_factory=True, validated_data={})
    read = TypeAdapter(info.rebuild_annotation())
    tried = 0
    for nothing in (None, "", False, "none", "no", "false", 0, *facts(info).idle, default):
        try:
            typed = read.validate_python(nothing)
        except ValidationError:
            if nothing == 0 and nothing is not False:
                continue  # a number that the key does not take is told, since it may be meant
            typed = None
        if isinstance(default, bool) and typed not in (None, default):
            continue  # where true is the default, false asks for something
        assert named(place, **{name: nothing}) == [], nothing
        tried += 1
    assert tried >= 3


def values() -> Iterator[Any]:
    for place, model in MODELS.items():
        for name, info in model.model_fields.items():
            for value in facts(info).values:
                if value != "deepspeed-adamw":
                    yield pytest.param(place, name, value, facts(info).values[value], id=f"{place}{name}={value}")


@pytest.mark.parametrize(("place", "name", "value", "why"), values())
def test_single_values_that_come_later_are_named(place: str, name: str, value: str, why: str) -> None:
    found = resolve(*given(place, **{name: value})).unsupported
    assert place + name in [item.field for item in found] == named(place, **{name: value})
    assert all(item.why == why for item in found)


def supported() -> Iterator[Any]:
    for place, model in MODELS.items():
        for name, info in model.model_fields.items():
            for value in choices(info) if facts(info).status == "supported" else ():
                if value not in facts(info).values:
                    yield pytest.param(place, name, value, id=f"{place}{name}={value}")


@pytest.mark.parametrize(("place", "name", "value"), supported())
def test_supported_values_are_silent(place: str, name: str, value: str) -> None:
    """With what the value needs beside it, and beside a dataset to train on where it is none."""
    needs = {"instanceprompt": {"instance_prompt": "sks"}, "aws": {"aws_bucket_name": "footage"}}
    needs["huggingface"] = {"dataset_name": "me/footage"}
    config, datasets = given(place, **{name: value}, **needs.get(value, {}))
    if value in ("aws", "huggingface"):
        datasets[0].pop("instance_data_dir")
    found = resolve(config, [*datasets, {**CLIPS, "id": "more"}])
    assert found.unsupported == ()


def test_the_optimizer_of_another_library_is_not_offered() -> None:
    with pytest.raises(ConfigError, match="optimizer: known, not offered: deepspeed-adamw belongs to DeepSpeed; write"):
        resolve({"optimizer": "deepspeed-adamw"}, [CLIPS])


def others(kind: str) -> Iterator[Any]:
    for place, known in OUTSIDE.items():
        for name, item in known.items():
            if item.kind == kind:
                yield pytest.param(place, name, item, id=f"{place}{name}")


@pytest.mark.parametrize(("place", "name", "item"), others("refused"))
def test_what_is_not_offered_is_refused_with_its_reason(place: str, name: str, item: outside.Outside) -> None:
    for value in (True, "true", 2, {"a": 1}, "x"):
        with pytest.raises(ConfigError) as error:
            resolve(*given(place, **{name: value}))
        assert str(error.value) == f"{place}{name}: known, not offered: {item.why}; remove it"
    for nothing in (*NOTHING, "false", [], {}):
        found = resolve(*given(place, **{name: nothing}))
        assert found.unsupported == () and found.corrections == ()


@pytest.mark.parametrize(("place", "name", "item"), others("idle"))
def test_what_has_no_effect_leaves_the_configuration_as_it_is(place: str, name: str, item: outside.Outside) -> None:
    info = FieldInfo.from_annotation(item.form)
    for value in (*(choices(info) or (True, False) if info.annotation is not float else (0.5, 3)), None, ""):
        assert resolve(*given(place, **{name: value})) == resolve({}, [CLIPS])
    with pytest.raises(ConfigError, match=r"must be|unknown value"):
        resolve(*given(place, **{name: "slip"}))


@pytest.mark.parametrize(("place", "name", "item"), others("fixed"))
def test_what_the_model_fixes_is_corrected_with_a_warning(place: str, name: str, item: outside.Outside) -> None:
    other = 3 if isinstance(item.value, int) else "epsilon"
    found = resolve(*given(place, **{name: other}))
    assert [str(change) for change in found.corrections] == [f"{place}{name} {other} → {item.value} ({item.why})"]
    for same in (item.value, str(item.value), None, ""):
        assert resolve(*given(place, **{name: same})) == resolve({}, [CLIPS])
    assert found.training == resolve({}, [CLIPS]).training and found.datasets == resolve({}, [CLIPS]).datasets


@pytest.mark.parametrize(("alias", "key"), outside.ALIASES.items())
def test_an_alias_is_the_key(alias: str, key: str) -> None:
    assert resolve({alias: 7}, [CLIPS]).training == resolve({key: 7}, [CLIPS]).training
    assert resolve({alias: 7}, [CLIPS]).training != resolve({}, [CLIPS]).training


@pytest.mark.parametrize(("alias", "key"), outside.DATASET_ALIASES.items())
def test_an_alias_of_a_dataset_is_the_key(alias: str, key: str) -> None:
    other = {"id": "more", "instance_data_dir": "more"}
    value = True if key == "disabled" else "fast"
    assert resolve({}, [{**CLIPS, alias: value}, other]) == resolve({}, [{**CLIPS, key: value}, other])
    assert resolve({}, [{**CLIPS, alias: value}, other]) != resolve({}, [CLIPS, other])
