"""What `resume_from_checkpoint` (spec.resumeFrom of a manifest) names, and whether a run can go on from it. Torch-free.

A checkpoint by its name in the run's own folder, a checkpoint's folder by its path, or another run: by its name, or by
the path of its folder. Another run stands for its newest complete checkpoint when it is first looked for; which one
that was is kept in the run's folder, so that later attempts follow the same course while the other run goes on.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ltx2_job import saved
from ltx2_job.errors import ConfigError, Problem
from ltx2_job.workspace import RunFolder, Workspace, read_json, write_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ltx2_job.config import TrainingConfig

FIELD: Final = "resume_from_checkpoint (spec.resumeFrom of a manifest)"
KEPT: Final = "resumed_from.json"  # in the run's folder


@dataclass(frozen=True)
class Origin:
    """Where a course begins: a checkpoint, and the sha256 of its manifest. of_run: chosen among another run's."""

    path: Path
    identity: str
    of_run: bool


def find_origin(reference: str, run: RunFolder, workspace: Workspace) -> Origin:
    """What a reference names. Raises ConfigError where nothing of that name is there, or it is not complete."""
    kept = _kept(reference, run)
    if kept is not None:
        return kept
    places = (run.checkpoints / reference, workspace.resolve(reference))
    path = next((place for place in places if place.is_dir()), None)
    other = RunFolder(path) if path else workspace.runs().get(reference)
    if other is None:
        there = ", ".join(each.name for each in saved.listed(run.checkpoints)) or "none"
        runs = ", ".join(name for name in workspace.runs() if name != run.root.name) or "none"
        remedy = f"write `latest`, a checkpoint of this run (there: {there}), another run (there: {runs}), or a path"
        raise ConfigError(Problem(FIELD, f"{reference!r} is no checkpoint", remedy))
    if not other.checkpoints.is_dir() and path:
        fault = saved.damage(path)
        if fault:
            raise ConfigError(Problem(FIELD, f"{path}: {fault}", "name another checkpoint, or `latest`"))
        return Origin(path, saved.identity(path), of_run=False)
    newest = saved.newest_complete(other.checkpoints)
    if newest is None:
        raise ConfigError(
            Problem(FIELD, f"{reference!r}: {other.root} has no complete checkpoint", "wait for one, or name another")
        )
    return Origin(newest, saved.identity(newest), of_run=True)


def keep(reference: str, run: RunFolder, origin: Origin) -> None:
    """Note in the run's folder which checkpoint of another run it began with."""
    write_json(run.root / KEPT, {"reference": reference, "checkpoint": str(origin.path), "identity": origin.identity})


def require_fitting(path: Path, config: "TrainingConfig") -> None:
    """Raise ConfigError unless a run of this configuration can go on from a complete checkpoint.

    Rank, alpha and optimizer must be the same, and there must be steps left (layers are compared when the model is
    loaded).
    """
    state = json.loads((path / saved.STATE).read_bytes())
    problems = mismatches(state, path.name, config)
    steps = config.max_train_steps
    if steps and state["step"] >= steps:
        message = f"is {steps}, but {path} has done {state['step']} steps already"
        problems.append(Problem("max_train_steps", message, "write the number of steps in all, those included"))
    if problems:
        raise ConfigError(problems)


def mismatches(state: "Mapping[str, Any]", name: str, config: "TrainingConfig") -> list[Problem]:
    """Where the configuration's adapter and optimizer differ from those of a checkpoint's state.json."""
    wanted = {
        "lora_rank": ("rank", config.lora_rank),
        "lora_alpha": ("alpha", float(config.lora_alpha or config.lora_rank)),
        "optimizer": ("optimizer", config.optimizer),
    }
    return [
        Problem(
            field,
            f"is {value!r}, but checkpoint {name} was made with {state[key]!r}",
            "put the old value back, or start a new run from its LoRA with init_lora",
        )
        for field, (key, value) in wanted.items()
        if state[key] != value
    ]


def _kept(reference: str, run: RunFolder) -> Origin | None:
    try:
        page = read_json(run.root / KEPT)
        if page["reference"] != reference:
            return None
        return Origin(Path(page["checkpoint"]), str(page["identity"]), of_run=True)
    except (OSError, ValueError, KeyError, TypeError):
        return None
