"""`ltx2 cache ls|gc`: what the cache of a workspace holds. Nothing in it is ever needed to use a LoRA."""

import contextlib
import fcntl
import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from ltx2_job import exitcodes
from ltx2_job.errors import UsageError
from ltx2_job.workspace import Workspace, read_json
from ltx2_operator.cli.words import table
from ltx2_operator.local import LOCK_FILE

SUFFIX: Final = ".safetensors"
YOUNG_SECONDS: Final = 3600.0  # a cache stage elsewhere on the same volume has not written its index yet


def cache(args: Namespace) -> int:
    """Show the cache, or free what no run's index names."""
    workspace = Workspace(args.workspace)
    return _show(workspace) if args.what == "ls" else _free(workspace, args.dry_run)


def entries(workspace: Workspace) -> Iterator[tuple[str, str, Path]]:
    """(kind, key, file) of every entry: cache/<kind>/<two letters>/<key>.safetensors."""
    for path in sorted(workspace.cache.glob(f"*/*/*{SUFFIX}")):
        yield path.parent.parent.name, path.name.removesuffix(SUFFIX), path


def used_keys(workspace: Workspace) -> set[str]:
    """Keys that the indices of runs/ name."""
    found: set[str] = set()
    for path in (workspace.root / "runs").glob("*/index.json"):
        index: Any = {}
        with contextlib.suppress(OSError, ValueError):
            index = read_json(path)
        for sample in index.get("samples", []):
            found |= {sample.get("video_key"), sample.get("audio_key"), *sample.get("text_keys", [])} - {None}
        found |= {prompt.get("key") for prompt in (index.get("prompts") or {}).values()}
    return found


def _show(workspace: Workspace) -> int:
    used = used_keys(workspace)
    sums: dict[str, list[int]] = {}
    for kind, key, path in entries(workspace):
        size = path.stat().st_size
        row = sums.setdefault(kind, [0, 0, 0, 0])
        row[0] += 1
        row[1] += size
        row[2] += key not in used
        row[3] += size * (key not in used)
    if not sums:
        print(f"{workspace.cache}: empty")
        return exitcodes.OK
    rows = [("KIND", "ENTRIES", "SIZE", "UNUSED", "UNUSED SIZE")]
    rows += [(kind, str(row[0]), _size(row[1]), str(row[2]), _size(row[3])) for kind, row in sums.items()]
    for line in table(rows):
        print(line)
    return exitcodes.OK


def _free(workspace: Workspace, dry_run: bool) -> int:
    """Remove entries of no run that are older than an hour. Raises UsageError while a run is under way here."""
    for path in (workspace.root / "runs").glob(f"*/{LOCK_FILE}"):
        if _held(path):
            raise UsageError(f"{path.parent.name} is running; free the cache after it")
    used, limit = used_keys(workspace), time.time() - YOUNG_SECONDS
    count = total = 0
    for _, key, path in entries(workspace):
        status = path.stat()
        if key in used or status.st_mtime > limit:
            continue
        count, total = count + 1, total + status.st_size
        if not dry_run:
            path.unlink()
    print(f"{workspace.cache}: {count} entries, {_size(total)} {'would be ' if dry_run else ''}freed")
    return exitcodes.OK


def _held(path: Path) -> bool:
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _size(count: int) -> str:
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError("unreachable")
