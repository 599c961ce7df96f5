"""Checkpoints of a run: complete or absent, and independent of how many processes made them.

    checkpoints/step-0000500/
        adapter.safetensors     LoRA weights by official key, unscaled, in the precision they are trained in
        optimizer.safetensors   <moment>.<official key>
        state.json              step (the sampler's position: one integer), schedule, seed, configuration, losses so far
        manifest.json           sha256 and size of the other three; written last

Everything is written and synced in a hidden temporary folder, which is then renamed. All random numbers come from
(seed, step, …), so the step is the whole state of every generator. torch is imported only to save and to load.
"""

import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ltx2_job.errors import ConfigError, Problem
from ltx2_job.saved import (
    ADAPTER,
    MANIFEST,
    OPTIMIZER,
    STATE,
    damage,
    identity,
    incomplete,
    listed,
    name_of,
    newest_complete,
    origin_of,
    step_of,
)
from ltx2_job.workspace import sync

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "ADAPTER", "MANIFEST", "OPTIMIZER", "STATE", "Loaded", "damage", "identity", "listed", "load", "name_of",
    "newest_complete", "purge", "save", "step_of", "sweep",
]  # fmt: skip

VERSION: Final = 1
_HIDDEN: Final = ".writing-"


@dataclass(frozen=True)
class Loaded:
    """One checkpoint in memory: adapter by official key, optimizer by `<moment>.<official key>`, and state.json."""

    path: Path
    adapter: "dict[str, Tensor]"
    optimizer: "dict[str, Tensor]"
    state: dict[str, Any]


def save(
    folder: Path,
    step: int,
    adapter: "Mapping[str, Tensor]",
    optimizer: "Mapping[str, Tensor]",
    state: Mapping[str, Any],
    guard: Callable[[], None] = lambda: None,
) -> Path:
    """Write the checkpoint of a step and return its folder; a folder already there under that name is replaced.

    `guard` is called right before the rename and may raise (the fence of the run). OSError as the volume gives it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f"{_HIDDEN}{name_of(step)}-{secrets.token_hex(4)}"
    temporary.mkdir()
    try:
        for name, tensors in ((ADAPTER, adapter), (OPTIMIZER, optimizer)):
            _write_tensors(temporary / name, tensors)
            (temporary / name).chmod(0o644)  # the library makes it readable by its writer alone
        _write(temporary / STATE, json.dumps({"version": VERSION, "step": step, **state}, indent=2, sort_keys=True))
        files = {name: _seal(temporary / name) for name in (ADAPTER, OPTIMIZER, STATE)}
        _write(
            temporary / MANIFEST,
            json.dumps({"version": VERSION, "step": step, "files": files}, indent=2, sort_keys=True),
        )
        sync(temporary / MANIFEST)
        sync(temporary)
        guard()
        target = folder / name_of(step)
        _set_aside(target)
        temporary.rename(target)
        sync(folder)
        return target
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def load(path: Path) -> Loaded:
    """Read a checkpoint. Raises ConfigError (field resume_from_checkpoint) where it is not complete and intact."""
    from safetensors.torch import load_file

    fault = damage(path)
    if fault:
        raise ConfigError(Problem("resume_from_checkpoint", f"{path}: {fault}", "name another checkpoint, or `latest`"))
    state = json.loads((path / STATE).read_bytes())
    return Loaded(path, load_file(path / ADAPTER), load_file(path / OPTIMIZER), state)


def purge(folder: Path, limit: int, step: int, origin: str = "") -> list[Path]:
    """Remove the oldest complete checkpoints of one course beyond `limit` (0: no limit) and return them.

    Only complete ones count and only complete ones are removed, so at least one of them always stays. `step`: the one
    that is known to be intact, just written or just read; a later one was passed over for its hash and does not count.
    """
    if limit <= 0:
        return []
    upto = [path for path in listed(folder) if step_of(path) <= step]
    mine = [path for path in upto if not incomplete(path) and origin_of(path) == origin]
    surplus = mine[:-limit]
    for path in surplus:
        _set_aside(path)
    return surplus


def sweep(folder: Path) -> None:
    """Remove what a killed process left half written or half removed. Call before the run's only writer begins."""
    if folder.is_dir():
        for path in folder.glob(f"{_HIDDEN}*"):
            shutil.rmtree(path, ignore_errors=True)


def _set_aside(path: Path) -> None:
    """Remove a folder so that it vanishes from view at once, and is never seen half removed."""
    if path.exists():
        hidden = path.with_name(f"{_HIDDEN}removed-{secrets.token_hex(4)}")
        path.rename(hidden)
        sync(path.parent)
        shutil.rmtree(hidden, ignore_errors=True)


def _write_tensors(path: Path, tensors: "Mapping[str, Tensor]") -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file({key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}, path)
    except SafetensorError as error:
        number = re.search(r"\(os error (\d+)\)", str(error))  # the library hides what the volume said in a text
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error


def _write(path: Path, text: str) -> None:
    path.write_text(text + "\n")


def _seal(path: Path) -> dict[str, Any]:
    """Sync a file and give its manifest entry."""
    sync(path)
    with path.open("rb") as file:
        return {"sha256": hashlib.file_digest(file, "sha256").hexdigest(), "bytes": path.stat().st_size}
