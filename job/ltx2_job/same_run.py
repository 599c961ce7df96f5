"""Whether a run folder may be used by a configuration: it keeps what it was made from. Torch-free, without writing.

The command that starts a run asks here before it starts anything, and so does the stage that takes the folder: on a
cluster only the pod sees the volume.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from ltx2_job import saved
from ltx2_job.config import resolve
from ltx2_job.errors import ConfigError, Problem
from ltx2_job.workspace import RunFolder, read_json

# How to start and where to write, not what is trained: these may differ between two commands on one run folder.
FREE_KEYS: Final = frozenset({"resume_from_checkpoint", "output_dir"})
# Values of resume_from_checkpoint that name no checkpoint in particular.
UNNAMED_CHECKPOINTS: Final = (None, "", "latest")


def require_same(run: RunFolder, dump: Mapping[str, Any], resume_from: str | None) -> None:
    """See that a run folder was not made by another configuration than `dump` (Resolved.dump()).

    A folder that holds neither a checkpoint nor a result has nothing to protect. One that does is refused when another
    configuration made it, unless `resume_from` names a checkpoint: then the user has chosen what to go on from. Raises
    ConfigError with one problem for each key that differs.
    """
    kept = run.result.exists() or bool(saved.with_manifest(run.checkpoints))
    if not kept or not run.config.exists() or resume_from not in UNNAMED_CHECKPOINTS:
        return
    before = {
        "config": _read(run.config, dict),
        "datasets": _read(run.datasets, list) if run.datasets.exists() else [],
    }
    problems = [
        Problem(
            where,
            f"is {_show(new)}, but {run.root} was made with {_show(old)}",
            "use another name or output_dir, the old value, or name a checkpoint to go on from in "
            "resume_from_checkpoint",
        )
        for where, old, new in differences(before, dump)
    ]
    if problems:
        raise ConfigError(problems)


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Where two dumps of a resolved configuration differ: (dotted name, old, new), FREE_KEYS left out.

    Both are resolved again first, so that a default that came with a newer version is no difference. Datasets are
    matched by id, and compared as a whole where one of them is missing.
    """
    before, now = _modern(before), _modern(now)
    found = [
        (f"config.{key}", before["config"].get(key), now["config"].get(key))
        for key in sorted(set(before["config"]) | set(now["config"]))
        if key not in FREE_KEYS and before["config"].get(key) != now["config"].get(key)
    ]
    old, new = ({item.get("id"): item for item in page["datasets"]} for page in (before, now))
    for name in sorted(set(old) | set(new), key=str):
        if name in old and name in new:
            keys = sorted(set(old[name]) | set(new[name]))
            found += [
                (f"datasets[{name}].{key}", old[name].get(key), new[name].get(key))
                for key in keys
                if old[name].get(key) != new[name].get(key)
            ]
        else:
            found.append((f"datasets[{name}]", old.get(name), new.get(name)))
    return found


def _modern(dump: Mapping[str, Any]) -> Mapping[str, Any]:
    """The dump as this version would write it; as it is if this version no longer accepts it."""
    try:
        return json.loads(json.dumps(resolve(dump["config"], dump["datasets"]).dump()))
    except ConfigError:
        return json.loads(json.dumps(dump))


def _show(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:79] + "…"


def _read(path: Path, kind: type[dict[str, Any]] | type[list[Any]]) -> Any:
    try:
        page = read_json(path)
        if not isinstance(page, kind):
            raise ValueError(f"a {type(page).__name__} stands in it")
        return page
    except (OSError, ValueError) as error:
        raise ConfigError(
            Problem(str(path), f"cannot be read ({error})", "repair it, or move the run folder away")
        ) from None
