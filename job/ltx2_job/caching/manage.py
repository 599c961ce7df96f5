"""Looking at the store and freeing space in it: `ltx2 cache ls` and `ltx2 cache gc`. Torch-free.

An item is in use when the index of any run refers to it, a mirror of clips (downloads/) when it names a clip there.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ltx2_job.data.index import Index
from ltx2_job.errors import UnavailableError
from ltx2_job.store import KINDS, Store
from ltx2_job.workspace import Workspace


@dataclass(frozen=True)
class Holding:
    """The items of one kind in one store, or the files of one mirror (kind: its folder)."""

    root: Path
    kind: str
    items: int
    bytes: int
    unused_items: int
    unused_bytes: int


@dataclass(frozen=True)
class Freed:
    """What was removed, or would be."""

    items: int
    bytes: int


def memory_path(workspace: Workspace) -> Path:
    """Where the cache stage remembers what it found out."""
    return workspace.cache / "memory.sqlite"


@contextmanager
def in_use(workspace: Workspace) -> Iterator[None]:
    """Held by a cache stage while it works, so that nothing is removed that its index will refer to.

    Several cache stages may hold it at once. On a volume without locks it holds nothing.
    """
    with _locked(workspace, fcntl.LOCK_SH):
        yield


def listing(workspace: Workspace) -> list[Holding]:
    """What every store of the workspace holds, by kind. Raises DataError for an index of another version."""
    indices = _indices(workspace)
    used, roots = _references(workspace, indices)
    rows = []
    for root in roots:
        for kind in KINDS:
            sizes = dict(Store(root).items(kind))
            unused = [size for key, size in sizes.items() if (kind, key) not in used]
            if sizes:
                rows.append(Holding(root, kind, len(sizes), sum(sizes.values()), len(unused), sum(unused)))
    return rows + [_mirror(home, unused) for home, unused in _mirrors(workspace, indices)]


def collect(workspace: Workspace, *, dry_run: bool = False) -> Freed:
    """Remove every item and mirror that no run's index refers to, and what dead writers left behind.

    Raises UnavailableError while a cache stage is at work in this workspace, DataError for an index of another version
    (what it refers to is not known, so nothing is removed).
    """
    with _locked(workspace, fcntl.LOCK_EX | fcntl.LOCK_NB):
        indices = _indices(workspace)
        used, roots = _references(workspace, indices)
        items = size = 0
        for root in roots:
            store = Store(root)
            for kind in KINDS:
                for key, length in list(store.items(kind)):
                    if (kind, key) not in used:
                        items += 1
                        size += length if dry_run else store.remove(kind, key)
            if not dry_run:
                store.sweep()
        for home, unused in _mirrors(workspace, indices):
            if unused:
                held = _mirror(home, unused)
                items, size = items + held.items, size + held.bytes
                if not dry_run:
                    shutil.rmtree(home)
        return Freed(items, size)


def _mirrors(workspace: Workspace, indices: list[Index]) -> list[tuple[Path, bool]]:
    """The folder of each mirror, and whether no run's index names a clip in it."""
    clips = [workspace.resolve(sample.path) for index in indices for sample in index.samples]
    used = {parent for clip in clips for parent in clip.parents}
    homes = sorted(path for path in workspace.downloads.glob("*") if path.is_dir())
    return [(home, home not in used) for home in homes]


def _mirror(home: Path, unused: bool) -> Holding:
    sizes = [path.stat().st_size for path in home.rglob("*") if path.is_file()]
    return Holding(home.parent, home.name, len(sizes), sum(sizes), len(sizes) * unused, sum(sizes) * unused)


def _references(workspace: Workspace, indices: list[Index]) -> tuple[set[tuple[str, str]], list[Path]]:
    """Every (kind, key) in use, and every store's root."""
    used: set[tuple[str, str]] = set()
    roots = [workspace.cache.resolve()]
    for index in indices:
        used |= index.keys()
        roots += [Path(root) for root in (index.cache_root, *index.extra_roots)]
    return used, list(dict.fromkeys(roots))


def _indices(workspace: Workspace) -> list[Index]:
    """The index of every run that has one. Raises DataError for one of another version."""
    return [Index.load(path) for path in sorted({run.index for run in workspace.every_run()}) if path.is_file()]


@contextmanager
def _locked(workspace: Workspace, how: int) -> Iterator[None]:
    workspace.cache.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(workspace.cache / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        try:
            fcntl.flock(descriptor, how)
        except BlockingIOError:
            raise UnavailableError(
                f"{workspace.cache}: a cache stage is at work and may need any of its items; try again when it is done"
            ) from None
        except OSError:
            pass  # no locks on this volume: the person who runs gc has to see to it
        yield
    finally:
        os.close(descriptor)
