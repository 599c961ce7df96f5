"""Where a configuration comes from: the file, the environment, the flags. Later ones win, key by key.

Each layer is read alone: names are checked, aliases resolved, empty values dropped. Only then does pydantic-settings
put the layers on top of each other, so that an alias given as a flag beats the key in the file.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import PydanticBaseSettingsSource

from ltx2_job.config import outside
from ltx2_job.config.changes import Correction
from ltx2_job.config.datasets import AudioOptions, DatasetConfig, VideoOptions
from ltx2_job.config.keys import facts
from ltx2_job.config.outside import Outside
from ltx2_job.config.problems import from_value, nearest
from ltx2_job.config.training import TrainingConfig
from ltx2_job.config.values import Bool, is_boolean_word
from ltx2_job.errors import Problem

PREFIX = "LTX2_"
# A Kubernetes Service called ltx2-something puts variables of these forms into every pod of its namespace.
_SERVICE_LINK = re.compile(r"_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT|PORT_\d+_(TCP|UDP|SCTP)(_(ADDR|PORT|PROTO))?)$")
_NOTHING = (None, "", False, 0, "none", "no", "false", "0")
_DECLINED = ("none", "no", "false")


@dataclass
class Layer:
    """One source's values under their canonical names, and what was noticed while reading it."""

    values: dict[str, Any] = field(default_factory=dict)
    shown: dict[str, str] = field(default_factory=dict)  # canonical name -> how the source writes it
    problems: list[Problem] = field(default_factory=list)
    corrections: list[Correction] = field(default_factory=list)


class LayerSource(PydanticBaseSettingsSource):
    """A layer as a source of pydantic-settings."""

    def __init__(self, settings_cls: type[TrainingConfig], layer: Layer):
        super().__init__(settings_cls)
        self._layer = layer

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """The layer's value of one field; None where it has none."""
        return self._layer.values.get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        """All values of the layer."""
        return dict(self._layer.values)


@dataclass(frozen=True)
class Names:
    """The names that one object of the configuration may hold."""

    model: type[BaseModel]
    outside: Mapping[str, Outside]
    aliases: Mapping[str, str] = field(default_factory=dict)

    def known(self) -> set[str]:
        """Every key and alias."""
        return {*self.model.model_fields, *self.outside, *self.aliases}


TRAINING = Names(TrainingConfig, outside.TRAINING, outside.ALIASES)
DATASET = Names(DatasetConfig, outside.DATASET, outside.DATASET_ALIASES)
VIDEO = Names(VideoOptions, outside.VIDEO)
AUDIO = Names(AudioOptions, outside.AUDIO)


def read(items: Iterable[tuple[str, Any]], names: Names, show: Callable[[str], str]) -> Layer:
    """Check the names of one object and bring its values under their canonical names.

    show: how a key is written in this source, for messages ("seed", "datasets[0].id", "LTX2_SEED", "--seed").
    """
    layer = Layer()
    for written, value in items:
        name = str(written).removeprefix("--")
        target = names.aliases.get(name, name)
        if name in names.outside:
            _read_outside(layer, show(name), names.outside[name], value)
        elif target not in names.model.model_fields:
            layer.problems.append(Problem(show(name), "unknown key", _hint(name, names, show)))
        elif value is None or value == "":
            continue  # null and "" mean unset
        elif _declines(names.model.model_fields[target], value):
            continue
        elif target in layer.values and layer.values[target] != value:
            layer.problems.append(
                Problem(show(name), f"is given twice, also as {layer.shown[target]}, with another value", "keep one")
            )
        else:
            layer.values[target], layer.shown[target] = value, show(name)
            if name in outside.WARNED_ALIASES and names is TRAINING:
                why = outside.WARNED_ALIASES[name]
                layer.corrections.append(Correction(show(name), value, f"{target} {value}", why))
    return layer


def _declines(info: FieldInfo, value: Any) -> bool:
    """Whether a value says no to a feature that is not built, in a word that the key itself does not take."""
    word = value.strip().lower() if isinstance(value, str) else value
    if facts(info).status != "later" or not (word is False or word in _DECLINED):
        return False
    try:
        TypeAdapter(info.rebuild_annotation()).validate_python(value)
    except ValidationError:
        return True
    return False


def _read_outside(layer: Layer, shown: str, known: Outside, value: Any) -> None:
    word = value.strip().lower() if isinstance(value, str) else value
    if known.kind == "refused":
        if not any(word == nothing for nothing in _NOTHING) and word not in ([], {}):
            layer.problems.append(Problem(shown, f"known, not offered: {known.why}", "remove it"))
        return
    if word is None or word == "":
        return
    try:
        read = TypeAdapter(known.form).validate_python(value)
    except ValidationError as error:
        layer.problems += from_value(error, shown)
        return
    if known.kind == "fixed" and read != known.value:
        layer.corrections.append(Correction(shown, read, known.value, known.why))


def _hint(name: str, names: Names, show: Callable[[str], str]) -> str:
    if name == "datasets" and names is TRAINING:
        return "move the list beside config, as spec.datasets, or name it data_backend_config"
    for other, place in (
        (VIDEO, "a dataset's video block"),
        (AUDIO, "a dataset's audio block"),
        (DATASET, "a dataset"),
        (TRAINING, "config"),
    ):
        if other is not names and name in other.known():
            return f"it belongs in {place}"
    close = nearest(name, names.known())
    if close:
        return f"did you mean {show(close).rpartition('.')[2]}?"
    return "`ltx2-job config reference` lists every key"


def read_file(config: Mapping[str, Any]) -> Layer:
    """The layer of config.json; a leading -- in a key is accepted."""
    return read(config.items(), TRAINING, str)


def read_environ(environ: Mapping[str, str]) -> Layer:
    """The layer of the variables LTX2_<KEY>; others are not looked at."""
    items = [
        (variable.removeprefix(PREFIX).lower(), value)
        for variable, value in environ.items()
        if variable.startswith(PREFIX) and not _SERVICE_LINK.search(variable)
    ]
    return read(items, TRAINING, lambda name: PREFIX + name.upper())


def read_flags(flags: Sequence[str]) -> Layer:
    """The layer of the command line: --key=value, --key value, and --key alone for a switch. The last one wins."""
    items: dict[str, Any] = {}
    problems: list[Problem] = []
    rest = list(flags)
    while rest:
        flag = rest.pop(0)
        if not flag.startswith("--") or flag == "--":
            problems.append(Problem(flag, "is no flag", "write --key=value"))
            continue
        name, equals, value = flag.removeprefix("--").partition("=")
        if not equals:
            switch = _is_switch(name)
            if rest and not rest[0].startswith("--") and (not switch or is_boolean_word(rest[0])):
                value = rest.pop(0)
            elif switch or name in outside.TRAINING:
                value = "true"
            elif TRAINING.aliases.get(name, name) in TrainingConfig.model_fields:
                problems.append(Problem(flag, "needs a value", f"write {flag}=value"))
                continue
        items[name] = value
    layer = read(items.items(), TRAINING, "--{}".format)
    layer.problems[:0] = problems
    return layer


def _is_switch(name: str) -> bool:
    info = TrainingConfig.model_fields.get(name)
    return info is not None and (info.annotation is bool or Bool in get_args(info.annotation))
