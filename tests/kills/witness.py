"""What must hold of a volume right after a break, and at the end of the run that was broken."""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

from kills.trial import MARK, STEPS, Place
from ltx2_job import checkpoint
from ltx2_job.data.index import Index

Contents = dict[str, str]
"""Path below the workspace -> sha256 of what a run left there, without times and without what only tells its story."""

_STORY: Final = re.compile(r"runs/run/(log\.txt|history\.jsonl|attempt|attempts/.*)|cache/(memory\.sqlite|\.lock)")
_PAGES: Final = ("config", "datasets", "plan", "model", "index", "report", "result")
# What may differ between two runs that end alike: times, and who computed what.
# A last measurement that a stop cut short is in metrics.jsonl and result.json, but came after its checkpoint.
_OWN: Final = frozenset({"time", "seconds", "finished", "seconds_per_step", "data_wait_seconds", "cache", "heldOut"})
# What grows: right after a break it is not yet what it will be.
_GROWING: Final = re.compile(r"runs/run/(metrics\.jsonl|validation/index\.html)")


def contents(place: Place) -> Contents:
    """Every file of run and cache, temporary ones included; an empty file of a writer that never came to lock it is
    the store's own to sweep later.
    """
    found = {}
    for folder in (place.run.root, place.cache):
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(place.root).as_posix()
            unborn = name.startswith("cache/tmp/") and path.is_file() and not path.stat().st_size
            if path.is_file() and not _STORY.fullmatch(name) and not unborn:
                found[name] = hashlib.sha256(_lasting(path)).hexdigest()
    return found


def unreadable(place: Place) -> list[str]:
    """Pages of the volume that are there but not whole; asked at any moment while a run goes on."""
    run = place.run
    paths = [run.root / f"{name}.json" for name in _PAGES]
    paths += [run.attempt, *run.attempts.glob("[0-9]*.json"), *run.checkpoints.glob("step-*/*.json")]
    return [fault for path in paths if (fault := _fault(path))]


def after_break(place: Place, whole: Contents) -> list[str]:
    """What is wrong with a volume whose run was just broken: everything under its final name must be complete."""
    problems = unreadable(place)
    for path in checkpoint.listed(place.run.checkpoints):
        problems += [f"{path.name}: {fault}" for fault in [checkpoint.damage(path)] if fault]
    if place.run.index.exists():
        Index.load(place.run.index)
    for name, digest in contents(place).items():
        hidden = any(part.startswith(".") for part in name.split("/")) or name.startswith("cache/tmp/")
        if not hidden and not _GROWING.fullmatch(name) and whole.get(name, digest) != digest:
            problems.append(f"{name} is not what the unbroken run has")
    return problems + dead_links(place)


def at_end(place: Place, whole: Contents, stopped: bool = False) -> list[str]:
    """Where the end differs from the unbroken run's.

    One that was `stopped` has a checkpoint of another step beside the last one: this is not compared.
    """
    here = contents(place)
    if stopped:
        earlier = [path.name for path in checkpoint.listed(place.run.checkpoints)[:-1]]
        other = re.compile(rf"runs/run/checkpoints/(?!{checkpoint.name_of(STEPS)}/).*")
        here, whole = ({name: each[name] for name in each if not other.fullmatch(name)} for each in (here, whole))
        if len(earlier) > 1:
            return [f"checkpoints {', '.join(earlier)} are beyond the limit"]
    missing, extra = sorted(set(whole) - set(here)), sorted(set(here) - set(whole))
    different = sorted(name for name in set(whole) & set(here) if whole[name] != here[name])
    named = (("missing", missing), ("left over", extra), ("different", different))
    return [f"{what}: {', '.join(names)}" for what, names in named if names] + unreadable(place) + dead_links(place)


def dead_links(place: Place) -> list[str]:
    """Clips that the gallery shows and that are not there."""
    page = place.run.validation / "index.html"
    shown = re.findall(r' src="([^"]+)"', page.read_text()) if page.exists() else []
    return [f"the gallery shows {name}" for name in shown if not (page.parent / unquote(name)).is_file()]


def last_step(place: Place) -> int:
    """The newest step in metrics.jsonl; a torn last line does not count."""
    steps = [0]
    for line in place.run.metrics.read_text().splitlines() if place.run.metrics.exists() else ():
        try:
            steps.append(int(json.loads(line)["step"]))
        except ValueError:
            continue
    return steps[-1]


def newest(place: Place) -> int:
    """The step of the newest complete checkpoint, 0 without one."""
    path = checkpoint.newest_complete(place.run.checkpoints)
    return 0 if path is None else checkpoint.step_of(path)


def items(place: Place) -> dict[Path, tuple[int, int]]:
    """Every item of the store, with what changes when it is written anew."""
    found = [path for kind in ("video", "audio", "text") for path in (place.cache / kind).rglob("*.safetensors")]
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in found}


def orphans(place: Place, patience: float = 10.0) -> list[str]:
    """Processes of a broken attempt that have not ended by themselves in time."""
    until = time.monotonic() + patience
    while (alive := _marked(place)) and time.monotonic() < until:
        time.sleep(0.05)
    return [f"process {pid} lives on" for pid in alive]


def _marked(place: Place) -> list[str]:
    mark, alive = f"{MARK}={place.base}".encode(), []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (folder / "environ").read_bytes().split(b"\0") and int(folder.name) != os.getpid():
                alive.append(folder.name)
        except OSError:
            continue
    return alive


def _fault(path: Path) -> str:
    try:
        json.loads(path.read_bytes())
    except FileNotFoundError:
        return ""
    except ValueError as error:
        return f"{path}: {error}"
    return ""


def _lasting(path: Path) -> bytes:
    """A file's bytes, without what may differ between two runs that end alike."""
    raw = path.read_bytes()
    if path.name == "metrics.jsonl":
        lines = raw.decode().splitlines()
        return b"\n".join(_page(line, _without) for line in lines)
    if path.name == checkpoint.MANIFEST:  # seals state.json, which holds seconds
        return _page(raw, lambda page: [page["files"][name] for name in (checkpoint.ADAPTER, checkpoint.OPTIMIZER)])
    if path.suffix == ".json":
        return _page(raw, _without)
    if path.suffix == ".safetensors" and len(raw) > 8:  # the library writes a header's entries in any order
        data = 8 + struct.unpack("<Q", raw[:8])[0]
        return _page(raw[8:data], lambda page: page) + raw[data:]
    return raw


def _page(raw: bytes | str, change: Callable[[Any], Any]) -> bytes:
    try:
        return json.dumps(change(json.loads(raw)), sort_keys=True).encode()
    except (ValueError, KeyError):
        return raw if isinstance(raw, bytes) else raw.encode()  # half of a page is a page of its own


def _without(page: Any) -> Any:
    if isinstance(page, Mapping):
        return {key: _without(value) for key, value in page.items() if key not in _OWN}
    return [_without(each) for each in page] if isinstance(page, list) else page
