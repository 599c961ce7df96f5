"""From files, environment and flags to the one configuration that runs, with everything that was changed on the way."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ltx2_job import strict_json
from ltx2_job.config import checks, layers
from ltx2_job.config.changes import Correction, Unsupported
from ltx2_job.config.corrections import correct_dataset, correct_training
from ltx2_job.config.datasets import DatasetConfig
from ltx2_job.config.layers import Layer, LayerSource
from ltx2_job.config.problems import from_validation
from ltx2_job.config.support import unsupported
from ltx2_job.config.training import TrainingConfig
from ltx2_job.errors import ConfigError, Problem
from ltx2_job.workspace import expanded

_FAMILY = "ltxvideo2"  # what the placeholder {model_family} in a path stands for


@dataclass(frozen=True)
class Resolved:
    """A configuration that can be read, corrected, ready to be planned and run.

    training: config.json, complete. datasets: the enabled entries in their order, `text_embeds` ones among them.
    corrections: what was changed. unsupported: what asks for a feature that is not built yet.
    """

    training: TrainingConfig
    datasets: tuple[DatasetConfig, ...]
    corrections: tuple[Correction, ...] = ()
    unsupported: tuple[Unsupported, ...] = ()

    @property
    def clips(self) -> tuple[DatasetConfig, ...]:
        """The datasets that hold clips: those trained on and those held out."""
        return tuple(dataset for dataset in self.datasets if dataset.dataset_type in checks.CLIPS)

    def require_supported(self) -> None:
        """Raise ConfigError naming every key that is not supported yet; return if there is none."""
        if self.unsupported:
            raise ConfigError(
                [
                    Problem(
                        item.field, f"not supported yet: {item.value} ({item.why})", "remove the key to run without it"
                    )
                    for item in self.unsupported
                ]
            )

    def dump(self) -> dict[str, Any]:
        """{"config": …, "datasets": […]}: complete, plain JSON. `resolve` of it gives the same, with no correction."""
        return {
            "config": self.training.model_dump(mode="json"),
            "datasets": [dataset.model_dump(mode="json") for dataset in self.datasets],
        }

    @property
    def digest(self) -> str:
        """sha256 (hex) of the dump, the same however numbers, booleans and aliases were written."""
        return hashlib.sha256(json.dumps(_canonical(self.dump()), sort_keys=True).encode()).hexdigest()


def resolve(
    config: Mapping[str, Any],
    datasets: Sequence[Mapping[str, Any]] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    flags: Sequence[str] = (),
    workspace: Path | None = None,
) -> Resolved:
    """Read config.json, LTX2_<KEY> variables and --key=value flags (later ones win) and the list of datasets.

    Without `datasets` they come from data_backend_config: the list itself, or a file in `workspace`.
    Raises ConfigError with every problem found.
    """
    if not isinstance(config, Mapping):
        raise ConfigError(Problem("config", f"must be an object, not {config!r}", "write { … }"))
    sources = [layers.read_file(config), layers.read_environ(environ or {}), layers.read_flags(flags)]
    problems = [problem for layer in sources for problem in layer.problems]
    changes = [change for layer in sources for change in layer.corrections]

    training, broken, found = _training(sources)
    problems += found
    problems += checks.check_training(training, broken)
    training, corrected = correct_training(training)
    changes += corrected

    entries: Sequence[Any] = ()
    if datasets is not None or "data_backend_config" not in broken:
        entries, found = _entries(training, datasets, workspace)
        problems += found
    typed: list[tuple[str, DatasetConfig]] = []
    unreadable = 0
    for index, entry in enumerate(entries):
        field = f"datasets[{index}]"
        dataset, found, fixed = _dataset(entry, field, training)
        problems += found
        if dataset is None:
            unreadable += bool(found)
            continue
        dataset, corrected = correct_dataset(dataset, field)
        changes += corrected + fixed
        problems += checks.check_dataset(dataset, field)
        typed.append((field, dataset))
    problems += checks.check_datasets(typed, complete=not unreadable)
    if not typed and not problems:
        problems.append(Problem("datasets", "there is no enabled dataset", "add an entry with dataset_type: video"))
    if problems:
        raise ConfigError(problems)

    training = training.model_copy(update={"data_backend_config": None})  # answered: the datasets stand beside it
    enabled = tuple(dataset for _, dataset in typed)
    return Resolved(training, enabled, tuple(changes), unsupported(training, typed))


def _training(sources: Sequence[Layer]) -> tuple[TrainingConfig, frozenset[str], list[Problem]]:
    """The typed configuration, the keys that could not be read (left at their defaults), and why."""
    problems: list[Problem] = []
    broken: frozenset[str] = frozenset()
    ordered = list(reversed(sources))  # pydantic-settings: the first source wins
    while True:
        try:
            training = TrainingConfig.from_sources([LayerSource(TrainingConfig, layer) for layer in ordered])
            return training, broken, problems
        except ValidationError as error:
            found = from_validation(error, "")
            for problem in found:
                shown = next(layer.shown[problem.field] for layer in ordered if problem.field in layer.shown)
                problems.append(Problem(shown, problem.message, problem.remedy))
            broken |= {problem.field for problem in found}
            for layer in ordered:
                for name in broken:
                    layer.values.pop(name, None)


def _entries(
    training: TrainingConfig, datasets: Sequence[Mapping[str, Any]] | None, workspace: Path | None
) -> tuple[Sequence[Any], list[Problem]]:
    """The raw dataset entries: given, inline in data_backend_config, or in the file that it names."""
    field, source = "data_backend_config", training.data_backend_config
    if datasets is not None:
        if isinstance(datasets, (list, tuple)):
            return datasets, []
        return [], [Problem("datasets", "must be a list of datasets", "write [ {…}, {…} ]")]
    if source is None:
        return [], [Problem("datasets", "there are none", "write data_backend_config or a list of datasets")]
    if isinstance(source, str):
        if workspace is None:
            return [], [
                Problem(field, f"{source} lies on the volume and cannot be read here", "write the datasets themselves")
            ]
        try:
            source = strict_json.loads((workspace / expanded(source)).read_bytes())
        except OSError as error:
            return [], [
                Problem(field, f"cannot read {source}: {error.strerror}", "write a path in the workspace, or the list")
            ]
        except strict_json.BadJson as error:
            return [], [Problem(field, f"{source} is not valid JSON: {error}", "repair the file")]
    if not isinstance(source, list):
        return [], [Problem(field, "must be a list of datasets", "write [ {…}, {…} ]")]
    return source, []


def _dataset(
    entry: Any, field: str, training: TrainingConfig
) -> tuple[DatasetConfig | None, list[Problem], list[Correction]]:
    """One typed entry with the defaults of config.json, None where it is disabled or cannot be read; why; and what of
    it the model fixes.
    """
    if not isinstance(entry, Mapping):
        return None, [Problem(field, f"must be an object, not {entry!r}", "write {id: …, instance_data_dir: …}")], []
    layer = layers.read(entry.items(), layers.DATASET, f"{field}.{{}}".format)
    if _is_disabled(layer.values.get("disabled")):
        return None, [], []
    problems, changes = layer.problems, layer.corrections
    blocks: dict[str, dict[str, Any]] = {}
    for block, names in (("video", layers.VIDEO), ("audio", layers.AUDIO)):
        given = layer.values.get(block, {})
        if isinstance(given, Mapping):
            inner = layers.read(given.items(), names, f"{field}.{block}.{{}}".format)
            problems += inner.problems
            changes += inner.corrections
            blocks[block] = inner.values
        else:
            problems.append(Problem(f"{field}.{block}", f"must be an object, not {given!r}", "write { … }"))
            blocks[block] = {}
    values = {**_inherited(training), **layer.values, **blocks}
    if isinstance(values.get("cache_dir"), str):
        values["cache_dir"] = values["cache_dir"].replace("{model_family}", _FAMILY)
    try:
        return DatasetConfig(**values), problems, changes
    except ValidationError as error:
        return None, problems + from_validation(error, f"{field}.", ("video", "audio")), changes


def _inherited(training: TrainingConfig) -> dict[str, Any]:
    """What a dataset takes from config.json where it does not say otherwise."""
    return {
        "caption_strategy": training.caption_strategy,
        "instance_prompt": training.instance_prompt,
        "prepend_instance_prompt": training.prepend_instance_prompt,
        "disable_multiline_split": training.disable_multiline_split,
        "resolution": training.resolution,
        "resolution_type": training.resolution_type,
    }


def _is_disabled(value: Any) -> bool:
    return (
        value is True or (isinstance(value, str) and value.strip().lower() in ("true", "yes", "on", "1")) or value == 1
    )


def _canonical(value: Any) -> Any:
    """The same JSON with one form per number, so that 5 and 5.0 count as equal."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Mapping):
        return {key: _canonical(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_canonical(item) for item in value]
    return value
