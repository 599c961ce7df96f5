"""The content-keyed store of everything that is computed once: one safetensors file per item, complete or absent.

An item's key is a hash over all that its content depends on (caching/keys.py), so an item is never changed, only added
or removed, and where it lies means nothing: runs share one store, and a store may look into others.

Durability: an item is written to `<root>/tmp`, synced, renamed to `<root>/<kind>/<key[:2]>/<key>.safetensors`, and the
folder is synced. A process that is killed at any moment loses at most the item it was writing. While it writes, it
holds an advisory lock on its temporary file; a temporary file that nobody holds is a dead writer's leftover and is
swept.

Importing this module imports no torch; `put` and `get` do.
"""

import contextlib
import fcntl
import json
import os
import secrets
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ltx2_job.errors import StorageError
from ltx2_job.workspace import sync

if TYPE_CHECKING:
    from torch import Tensor

VIDEO: Final = "video"  # {"latents": bf16 [128, f, h, w]}, normalised
AUDIO: Final = "audio"  # {"latents": fp32 [L, 128]}, packed, then normalised
TEXT: Final = "text"  # {"video": bf16 [T, Dv], "audio": bf16 [T, Da]}, connector outputs
KINDS: Final = (VIDEO, AUDIO, TEXT)
SUFFIX: Final = ".safetensors"


class Store:
    """Items of several kinds under one root folder, each under its content key.

    `also` names further roots that are only read: a dataset with a `cache_dir` of its own has its items there, and a
    reader that is given all roots finds every item wherever it lies.
    """

    def __init__(self, root: Path, also: Sequence[Path] = ()):
        self.root = Path(root)
        self.also = tuple(Path(other) for other in also)

    def path(self, kind: str, key: str) -> Path:
        """Where an item is written: root/kind/key[:2]/key.safetensors."""
        return _path(self.root, kind, key)

    def find(self, kind: str, key: str) -> Path | None:
        """Where an item lies, looked for in the own root first; None if it is nowhere."""
        for root in (self.root, *self.also):
            path = _path(root, kind, key)
            if path.is_file():
                return path
        return None

    def has(self, kind: str, key: str) -> bool:
        """Whether an item is there. One stat per root; a file that has its final name is complete."""
        return self.find(kind, key) is not None

    def put(self, kind: str, key: str, tensors: "Mapping[str, Tensor]", meta: Mapping[str, str]) -> Path:
        """Write one item, complete or absent, and return its path. An item that is there already is left as it is.

        Raises OSError as the volume gives it (ENOSPC, EACCES, EROFS ...): the caller knows the run and the remedy.
        """
        path = self.path(kind, key)
        if path.is_file():
            return path
        from safetensors.torch import save

        raw = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, dict(meta))
        _make_folders(path.parent)
        temporary = self.root / "tmp" / f"{key}.{secrets.token_hex(8)}.tmp"
        _make_folders(temporary.parent)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            with os.fdopen(descriptor, "wb") as file:
                _lock(file.fileno())
                file.write(raw)
                file.flush()
                os.fsync(file.fileno())
                os.replace(temporary, path)  # still locked: nobody sweeps it before it has its final name
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        sync(path.parent)
        return path

    def get(self, kind: str, key: str) -> "dict[str, Tensor]":
        """Read one item's tensors, on the CPU.

        Raises KeyError if it is nowhere, StorageError if its file cannot be read as what it should be (a damaged disk:
        the store itself never leaves a half-written item under its final name).
        """
        path = self._found(kind, key)
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise _unreadable(path, error) from error

    def meta(self, kind: str, key: str) -> dict[str, str]:
        """The text beside an item's tensors, read from the file's header alone (no torch). Raises as `get`."""
        path = self._found(kind, key)
        try:
            with path.open("rb") as file:
                (length,) = struct.unpack("<Q", file.read(8))
                header = json.loads(file.read(length))
            return dict(header.get("__metadata__", {}))
        except (OSError, ValueError, struct.error) as error:
            raise _unreadable(path, error) from error

    def items(self, kind: str) -> Iterator[tuple[str, int]]:
        """(key, size in bytes) of every item of a kind in the own root, sorted by key."""
        folder = self.root / kind
        for shard in sorted(folder.iterdir()) if folder.is_dir() else ():
            for path in sorted(shard.glob("*" + SUFFIX)) if shard.is_dir() else ():
                with contextlib.suppress(FileNotFoundError):  # removed by another process meanwhile
                    yield path.name.removesuffix(SUFFIX), path.stat().st_size

    def remove(self, kind: str, key: str) -> int:
        """Remove an item from the own root; the bytes freed, 0 if it was not there."""
        path = self.path(kind, key)
        try:
            size = path.stat().st_size
            path.unlink()
        except FileNotFoundError:
            return 0
        return size

    def sweep(self) -> int:
        """Remove what dead writers left in tmp/; the bytes freed. Living writers' files are locked and stay."""
        freed = 0
        folder = self.root / "tmp"
        for path in sorted(folder.glob("*.tmp")) if folder.is_dir() else ():
            with contextlib.suppress(FileNotFoundError):
                descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
                try:
                    status = os.fstat(descriptor)
                    # An empty young file may be one whose writer has not come to lock it yet.
                    old = time.time() - status.st_mtime > 3600
                    if (status.st_size or old) and _lock(descriptor, wait=False):
                        path.unlink()
                        freed += status.st_size
                finally:
                    os.close(descriptor)
        return freed

    def _found(self, kind: str, key: str) -> Path:
        path = self.find(kind, key)
        if path is None:
            raise KeyError(f"{kind} item {key} is not in {self.root}; run the cache stage again")
        return path


def _path(root: Path, kind: str, key: str) -> Path:
    return root / kind / key[:2] / f"{key}{SUFFIX}"


def _make_folders(folder: Path) -> None:
    """mkdir -p whose new entries survive a power cut."""
    if folder.is_dir():
        return
    _make_folders(folder.parent)
    folder.mkdir(exist_ok=True)
    sync(folder.parent)


def _lock(descriptor: int, *, wait: bool = True) -> bool:
    """Take the advisory lock that says "a living writer has this"; False if another process holds it.

    A file system without locks (some network mounts) says so by an error: then nothing is ever swept there, which
    wastes a few files and loses none.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        return wait
    return True


def _unreadable(path: Path, error: Exception) -> StorageError:
    return StorageError(
        f"{path}: this cached item cannot be read ({error}); check the disk, delete the file, run the cache stage again"
    )
