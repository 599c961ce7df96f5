"""Checkpoints as they lie on a volume: which are there, which are complete. Torch-free; checkpoint.py writes them."""

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

ADAPTER: Final = "adapter.safetensors"
OPTIMIZER: Final = "optimizer.safetensors"
STATE: Final = "state.json"
MANIFEST: Final = "manifest.json"
_NAME: Final = re.compile(r"step-(\d{7,})")


def name_of(step: int) -> str:
    """Folder name of a step's checkpoint."""
    return f"step-{step:07d}"


def damage(path: Path) -> str:
    """What is wrong with a checkpoint, in words; empty where every file has the size and hash of the manifest."""
    fault = incomplete(path)
    if fault:
        return fault
    for name, entry in _manifest(path)["files"].items():
        with (path / name).open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != entry["sha256"]:
                return f"{name} does not have the hash of its manifest"
    return ""


def listed(folder: Path) -> list[Path]:
    """Checkpoint folders of a run, oldest step first, damaged ones included."""
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if path.is_dir() and _NAME.fullmatch(path.name)]
    return sorted(found, key=step_of)


def with_manifest(folder: Path) -> list[Path]:
    """Those whose manifest is there, which is written last; no file is looked into."""
    return [path for path in listed(folder) if (path / MANIFEST).exists()]


def step_of(path: Path) -> int:
    """The step in a checkpoint's folder name."""
    match = _NAME.fullmatch(path.name)
    if not match:
        raise ValueError(f"{path.name} is not the name of a checkpoint")
    return int(match[1])


def newest_complete(
    folder: Path, warn: Callable[[str], None] = lambda _: None, origin: str | None = None
) -> Path | None:
    """The newest checkpoint that is complete and intact, hashes verified; each broken one on the way is warned about.

    With `origin`, only checkpoints whose course began there count (see `identity`).
    """
    for path in reversed(listed(folder)):
        fault = damage(path)
        if fault:
            warn(f"{path.name}: {fault}; skipped, looking for an older checkpoint")
        elif origin is None or origin_of(path) == origin:
            return path
    return None


def identity(path: Path) -> str:
    """What tells a checkpoint from all others: the sha256 of its manifest."""
    return hashlib.sha256((path / MANIFEST).read_bytes()).hexdigest()


def incomplete(path: Path) -> str:
    """`damage` without the hashes: cheap enough for every save."""
    try:
        files = _manifest(path)["files"]
    except FileNotFoundError:
        return "no manifest, so it was not written to the end"
    except (ValueError, KeyError, TypeError):
        return "its manifest cannot be read"
    for name in (ADAPTER, OPTIMIZER, STATE):
        if name not in files:
            return f"its manifest does not list {name}"
        try:
            size = (path / name).stat().st_size
        except FileNotFoundError:
            return f"{name} is missing"
        if size != files[name]["bytes"]:
            return f"{name} has {size} bytes, its manifest says {files[name]['bytes']}"
    return ""


def _manifest(path: Path) -> dict[str, Any]:
    return json.loads((path / MANIFEST).read_bytes())


def origin_of(path: Path) -> str | None:
    try:
        return json.loads((path / STATE).read_bytes()).get("origin", "")
    except ValueError:
        return None
