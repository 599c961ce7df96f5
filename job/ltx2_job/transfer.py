"""Files over a pipe between two machines: one side offers, the other says what it lacks; each arrives whole or not at
all. `ltx2 upload` and `ltx2 fetch` speak this with `ltx2-job receive` and `ltx2-job send` in a pod. Torch-free.

Messages are lines of JSON; only the bytes of a file are not. One transfer, S the side that sends and R the other:

    S  {"offer": [{"name": "a.mp4", "size": 3, "mtime": 1700000000}, ...]}
    R  {"wanted": ["a.mp4", ...]}
    S  {"file": {"name", "size", "mtime"}}, then chunks: 4 bytes of length (big-endian), so many bytes; length 0 last,
       then {"sha256": "<hex>"}; or {"gone": "a.mp4"} for a file that was removed meanwhile; for each wanted
    R  {"received": 1}

Either side may say {"error": "...", "code": 73} in place of a message, and ends. A file counts as there if name, size
and mtime (seconds) agree, so that an interrupted transfer goes on where it was.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final, Protocol

from ltx2_job import exitcodes, saved
from ltx2_job.console import size_text
from ltx2_job.errors import DataError, JobError, StorageError, UnavailableError
from ltx2_job.storage import CLOSED, FULL, free
from ltx2_job.workspace import sync

CHUNK: Final = 256 * 1024
LINE_MOST: Final = 64 * 2**20  # an offer of some 500,000 files
Moved = Callable[[str, int], None]  # name of a file, bytes of it that moved just now


class Pipe(Protocol):
    """Two directions of bytes. `read` waits for some and gives b"" at the end; `ready` says whether it would wait."""

    def write(self, data: bytes) -> None: ...

    def read(self) -> bytes: ...

    def ready(self) -> bool: ...


@dataclass(frozen=True)
class Item:
    """A file as it is offered: its path in the folder with slashes, bytes, and seconds of its last change."""

    name: str
    size: int
    mtime: int


@dataclass(frozen=True)
class Tally:
    """What a transfer did: files and bytes that moved, and files that were there already."""

    files: int
    bytes: int
    there: int


class RemoteError(JobError):
    """What the other side said, with its exit code."""

    def __init__(self, message: str, code: int) -> None:
        self.exit_code = code
        super().__init__(message)


class OtherVersionError(UnavailableError):
    """The other side does not speak as this one: it is of another version."""


class Talk:
    """Messages and chunks over a pipe."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe, self._rest = pipe, b""

    def say(self, message: Mapping[str, Any]) -> None:
        """Send one message."""
        self._write(json.dumps(message).encode() + b"\n")

    def hear(self, *kinds: str) -> tuple[str, Any]:
        """The next message, which has to be one of `kinds`. Raises RemoteError, UnavailableError."""
        while b"\n" not in self._rest:
            if len(self._rest) > LINE_MOST:
                raise OtherVersionError("the other side does not speak this protocol")
            self._more()
        line, _, self._rest = self._rest.partition(b"\n")
        try:
            message = dict(json.loads(line))
        except (ValueError, TypeError):
            raise OtherVersionError(f"the other side said {line[:200]!r}") from None
        if "error" in message:
            raise RemoteError(str(message["error"]), int(message.get("code") or exitcodes.SOFTWARE))
        kind = next((one for one in kinds if one in message), None)
        if kind is None:
            raise OtherVersionError(f"the other side said {sorted(message)}")
        return kind, message[kind]

    def send_chunk(self, data: bytes) -> None:
        """Send bytes of a file, b"" at its end; an error that the other side has told meanwhile is raised."""
        if self._pipe.ready():
            self.hear()
        self._write(len(data).to_bytes(4, "big") + data)

    def chunk(self) -> bytes:
        """The next bytes of a file, b"" at its end."""
        size = int.from_bytes(self._exactly(4), "big")
        if size > 16 * CHUNK:
            raise OtherVersionError("the other side does not speak this protocol")
        return self._exactly(size)

    def _write(self, data: bytes) -> None:
        """Write; where the other side has left, raise what it said last."""
        try:
            self._pipe.write(data)
        except OSError:
            self.hear()
            raise _cut() from None

    def _exactly(self, size: int) -> bytes:
        parts, missing = [self._rest], size - len(self._rest)
        while missing > 0:
            parts.append(self._pipe.read())
            missing -= len(parts[-1])
            if not parts[-1]:
                raise _cut()
        whole = b"".join(parts)
        self._rest = whole[size:]
        return whole[:size]

    def _more(self) -> None:
        data = self._pipe.read()
        if not data:
            raise _cut()
        self._rest += data


def _cut() -> UnavailableError:
    return UnavailableError(
        "the connection broke off; what has arrived whole stays, the same command goes on from there"
    )


# ----------------------------------------------------------------------------------------------------------- sending


def listed(folder: Path) -> dict[str, Path]:
    """The files of a folder and its sub-folders by name; what begins with a dot is left out, links are followed."""
    found: dict[str, Path] = {}
    seen: set[str] = set()
    for root, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(root)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = Path(root, name)
            if not name.startswith(".") and path.is_file():
                found[path.relative_to(folder).as_posix()] = path
    return found


def send(
    pipe: Pipe,
    files: Mapping[str, Path],
    moved: Moved = lambda name, size: None,
    coming: Callable[[int], None] = lambda size: None,
    *,
    growing: bool = False,
) -> Tally:
    """Offer files, in their order, and send what is wanted.

    coming: is told the bytes that are wanted. growing: a file may grow or vanish meanwhile (a run that still trains):
    its length at the beginning is sent. Raises DataError for a file that changes otherwise or cannot be read,
    RemoteError, UnavailableError.
    """
    talk, offered = Talk(pipe), {}
    for name, path in files.items():
        with contextlib.suppress(FileNotFoundError):
            offered[name] = _item(name, path.stat())
    talk.say({"offer": [vars(item) for item in offered.values()]})
    wanted = talk.hear("wanted")[1]
    if not isinstance(wanted, list) or set(wanted) - set(offered):
        raise OtherVersionError("the other side wants what was not offered")
    coming(sum(offered[name].size for name in wanted))
    sent = sum(_send_file(talk, name, files[name], moved, growing) for name in wanted)
    talk.hear("received")
    return Tally(len(wanted), sent, len(offered) - len(wanted))


def _send_file(talk: Talk, name: str, path: Path, moved: Moved, growing: bool) -> int:
    try:
        file = path.open("rb")
    except FileNotFoundError:
        if not growing:
            raise DataError(f"{path}: was removed while it was about to be sent; run it again") from None
        talk.say({"gone": name})
        return 0
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; see that this user may read it") from None
    with file:
        item = _item(name, os.fstat(file.fileno()))
        talk.say({"file": vars(item)})
        digest, left = hashlib.sha256(), item.size
        while left and (data := file.read(min(CHUNK, left))):
            talk.send_chunk(data)
            digest.update(data)
            left -= len(data)
            moved(name, len(data))
        same = _item(name, os.fstat(file.fileno())) == item
        if left or not (same or growing):
            # Inside a file the other side waits for a chunk: an end without a digest is what it can understand.
            talk.send_chunk(b"")
            raise DataError(f"{path}: changed while it was being sent; run it again")
        talk.send_chunk(b"")
        talk.say({"sha256": digest.hexdigest()})
    return item.size


def _item(name: str, found: os.stat_result) -> Item:
    return Item(name, found.st_size, int(found.st_mtime))


# --------------------------------------------------------------------------------------------------------- receiving


def receive(
    pipe: Pipe, folder: Path, moved: Moved = lambda name, size: None, coming: Callable[[int], None] = lambda size: None
) -> Tally:
    """Take what is offered and not there yet into a folder, which is made.

    coming: is told the bytes that will come. Raises StorageError before anything is written if they do not fit, or if
    the folder is not writable; DataError for a file that arrives damaged; RemoteError, UnavailableError.
    """
    talk = Talk(pipe)
    items = _offer(talk.hear("offer")[1])
    wanted = [item for item in items if not _there(folder / item.name, item)]
    size = sum(item.size for item in wanted)
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if size > (there := free(folder)):
            raise StorageError(f"{folder}: no space left (needs {size_text(size)}, {size_text(there)} free)")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(13, os.strerror(13), str(folder))
        coming(size)
        talk.say({"wanted": [item.name for item in wanted]})
        done = [taken for item in wanted if (taken := _receive_file(talk, folder, item.name, moved)) is not None]
    talk.say({"received": len(done)})
    return Tally(len(done), sum(done), len(items) - len(wanted))


def _receive_file(talk: Talk, folder: Path, name: str, moved: Moved) -> int | None:
    """Bytes of a file that has arrived, None for one that is gone."""
    kind, header = talk.hear("file", "gone")
    if kind == "gone":
        return None
    item = _checked(header)
    if item.name != name:
        raise OtherVersionError(f"{item.name} came in place of {name}")
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with _part(path) as (file, part):
        digest, size = hashlib.sha256(), 0
        while data := talk.chunk():
            file.write(data)
            digest.update(data)
            size += len(data)
            moved(name, len(data))
        if talk.hear("sha256")[1] != digest.hexdigest() or size != item.size:
            raise DataError(f"{name}: arrived damaged ({size} of {item.size} bytes); run the same command again")
        file.flush()
        os.fchmod(file.fileno(), 0o644)
        os.utime(file.fileno(), (item.mtime, item.mtime))
        os.fsync(file.fileno())
        os.replace(part, path)
    sync(path.parent)
    return size


@contextlib.contextmanager
def _part(path: Path) -> Iterator[tuple[Any, Path]]:
    """A file beside `path` that only this process writes; removed unless it was renamed.

    Its name begins with a dot, so that nobody takes it for a clip, and is the same each time: what a killed process
    left is written over.
    """
    part = path.parent / f".{hashlib.sha256(path.name.encode()).hexdigest()[:16]}.part"
    with part.open("a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StorageError(
                f"{path}: another transfer writes it now; wait for that one, then run it again"
            ) from None
        file.truncate(0)
        try:
            yield file, part
        except BaseException:
            part.unlink(missing_ok=True)
            raise


def _offer(found: Any) -> list[Item]:
    if not isinstance(found, list):
        raise OtherVersionError("the other side offers no list")
    items = [_checked(one) for one in found]
    if len({item.name for item in items}) != len(items):
        raise OtherVersionError("the other side offers a file twice")
    return items


def _checked(found: Any) -> Item:
    """An item whose name stays inside the folder. Raises UnavailableError."""
    try:
        item = Item(str(found["name"]), int(found["size"]), int(found["mtime"]))
    except (TypeError, KeyError, ValueError):
        raise OtherVersionError("the other side offers no files") from None
    path = PurePosixPath(item.name)
    if path.is_absolute() or not path.parts or ".." in path.parts or "\0" in item.name or item.size < 0:
        raise UnavailableError(f"{item.name!r} is no name of a file below the folder; it is not taken")
    return item


def _there(path: Path, item: Item) -> bool:
    try:
        found = path.stat()
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and (found.st_size, int(found.st_mtime)) == (item.size, item.mtime)


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """What the volume refuses, as StorageError with a remedy."""
    try:
        yield
    except OSError as error:
        where = os.fsdecode(error.filename or folder)
        if error.errno in FULL:
            raise StorageError(f"{where}: no space left ({size_text(free(folder))} free)") from error
        if error.errno in CLOSED:
            raise StorageError(
                f"{where}: {error.strerror} for user {os.geteuid()}; make the folder writable for it (fsGroup, chown)"
            ) from error
        if isinstance(error, NotADirectoryError | FileExistsError | IsADirectoryError):
            raise StorageError(f"{where}: {error.strerror}; a file and a folder have the same name") from error
        raise


def tell(pipe: Pipe, error: JobError) -> None:
    """Say an error to the other side, if it still listens."""
    with contextlib.suppress(OSError):
        Talk(pipe).say({"error": str(error), "code": error.exit_code})


# ------------------------------------------------------------------------------------------------------ a run's files


def run_files(root: Path, checkpoints: bool) -> dict[str, Path]:
    """What `ltx2 fetch` brings of a run's folder: all but its checkpoints, unless they are asked for.

    A checkpoint's manifest, which makes it complete, comes after its other files.
    """
    folder = "checkpoints/"
    found = {name: path for name, path in listed(root).items() if not name.startswith(folder)}
    if checkpoints:
        for checkpoint in saved.with_manifest(root / "checkpoints"):
            files = listed(checkpoint)
            order = sorted(files, key=lambda name: (name == saved.MANIFEST, name))
            found |= {f"{folder}{checkpoint.name}/{name}": files[name] for name in order}
    return found
