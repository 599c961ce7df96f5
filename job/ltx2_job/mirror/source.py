"""What lies at a source, and which of it a dataset reads. Pure but for the interface at the end."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final, Protocol

from ltx2_job.discover import EXTENSIONS

CAPTIONS: Final = (".txt",)


@dataclass(frozen=True)
class Item:
    """A file of a source: its size in bytes, and a tag that changes with its content (an ETag, a digest)."""

    bytes: int
    tag: str


@dataclass(frozen=True)
class Listed:
    """What a source holds now: the files below its folder by their path in it.

    commit: of a repository; None where nothing names the state as a whole.
    """

    files: Mapping[str, Item]
    commit: str | None = None


class Source(Protocol):
    """A place that clips are mirrored from."""

    named: str  # as messages name it

    def listing(self) -> Listed:
        """Everything there. Raises AuthError, ConfigError, UnavailableError, NoInputError, Transient."""

    def has_clip(self) -> bool:
        """Whether there is one, asked as briefly as the place allows. Raises as `listing`."""

    def reading(self, listed: Listed, name: str, begin: int) -> AbstractContextManager[tuple[int, Iterator[bytes]]]:
        """The bytes of a file in the listed state: position of the first one, and chunks. Raises as `listing`."""


def is_clip(name: str) -> bool:
    """Whether a file of a source is a clip by its name, as discover.find_clips has it."""
    return name.lower().endswith(EXTENSIONS) and _is_read(name)


def wanted(listed: Listed) -> tuple[dict[str, Item], list[str]]:
    """The clips and caption files, and those that no file system holds under their name, to be told.

    Other files are not fetched: nothing would read them.
    """
    files = {
        name: item
        for name, item in sorted(listed.files.items())
        if name.lower().endswith((*EXTENSIONS, *CAPTIONS)) and _is_read(name)
    }
    folders = {name[:at] for name in files for at in range(len(name)) if name[at] == "/"}
    odd = [name for name in files if name in folders or not _is_path(name)]
    return {name: item for name, item in files.items() if name not in set(odd)}, odd


def _is_read(name: str) -> bool:
    """Names that begin with a dot are left out, folders as well, as discover.find_clips does; `..` is told instead."""
    return not any(part.startswith(".") and part not in (".", "..") for part in name.split("/"))


def _is_path(name: str) -> bool:
    parts = name.split("/")
    return "\0" not in name and all(part not in ("", ".", "..") and len(part.encode()) <= 255 for part in parts)
