"""What a soak leaves: objects, files, and the size of the operator's process."""

import re
from pathlib import Path
from typing import Any

from .. import deeds
from ..world import World
from .runs import BUDGETS

KINDS = ("jobs", "pods", "configmaps", "services", "secrets")
# What there is of a run by the number of its attempts, and what the soak itself puts on the volume.
VARYING = {"attempts", BUDGETS}


def objects(world: World) -> list[str]:
    """Every object of a training that is left in the namespace. Who deletes a Job and orphans its pods keeps them."""
    return [
        f"{kind}/{one['metadata']['name']}"
        for kind in KINDS
        for one in world.operator.objects(kind, world.namespace, "ltx2.dev/training")
        if kind != "pods" or one["metadata"].get("ownerReferences")
    ]


def claims(world: World) -> set[str]:
    """The claims of the namespace."""
    return set(world.operator.names("persistentvolumeclaims", world.namespace))


def files(workspace: Path, reference: Path, runs: dict[str, str]) -> list[str]:
    """Files of a workspace that no undisturbed run has left in `reference`. runs: the reference's name for each run."""
    allowed = _known(reference)
    found = []
    for path in sorted(workspace.rglob("*")):
        name = path.relative_to(workspace)
        if path.is_dir() or _generalised(name, runs) in allowed or set(name.parts) & VARYING:
            continue
        found.append(str(name))
    return found


def _known(reference: Path) -> set[tuple[str, ...]]:
    return {_any_step(path.relative_to(reference).parts) for path in reference.rglob("*") if path.is_file()}


def _any_step(parts: tuple[str, ...]) -> tuple[str, ...]:
    """Which checkpoints there are depends on how far a run came."""
    return tuple(re.sub(r"^step-\d+$", "step-N", part) for part in parts)


def _generalised(name: Path, runs: dict[str, str]) -> tuple[str, ...]:
    """A file of a run by the name that the undisturbed one has."""
    parts = _any_step(name.parts)
    if len(parts) > 2 and parts[0] == "runs":
        return ("runs", runs.get(parts[1], parts[1]), *parts[2:])
    return parts


def footprint(world: World) -> dict[str, Any]:
    """The operator's process now: resident MiB, threads, open files."""
    process = next(deeds.operators(world), None)
    if process is None:
        return {}
    folder = Path(f"/proc/{process.pid}")
    try:
        status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
        return {
            "pid": process.pid,
            "MiB": round(int(status["VmRSS"].split()[0]) / 1024, 1),
            "threads": int(status["Threads"]),
            "files": len(list((folder / "fd").iterdir())),
        }
    except OSError:
        return {}
