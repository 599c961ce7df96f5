"""Bringing a mirror up to date with its source: what has changed is fetched, what has gone is removed.

A file is there whole or not at all. What it is known to be is noted after it has its name, so that a process that is
killed between the two fetches one file again and never takes an old one for the new.
"""

import contextlib
import functools
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from ltx2_job.console import size_text
from ltx2_job.errors import NoInputError
from ltx2_job.fetching import Fetcher, require_room, within_room
from ltx2_job.mirror.source import Item, Listed, Source, is_clip, wanted
from ltx2_job.workspace import read_page, size_of, sync, write_json

_PAGE: Final = "source.json"
_JOURNAL: Final = "fetched.jsonl"


@dataclass(frozen=True)
class Mirror:
    """The mirror of one source, in the folder `home` (mirror/place.py)."""

    home: Path

    @property
    def files(self) -> Path:
        """The folder of the clips."""
        return self.home / "files"

    def commit(self) -> str | None:
        """The commit that is here as a whole; None where a file has gone, and where the source has none."""
        page = read_page(self.home / _PAGE)
        found = {name: Item(**item) for name, item in page.get("files", {}).items()}
        return page.get("commit") if found and not self.missing(found) else None

    def missing(self, files: Mapping[str, Item]) -> dict[str, Item]:
        """The files that are not here as they are listed."""
        known = self._known()
        return {
            name: item for name, item in files.items()
            if known.get(name) != item or size_of(self.files / name) != item.bytes
        }  # fmt: skip

    def update(self, source: Source, fetcher: Fetcher) -> Listed:
        """Make the mirror equal to its source, and return what that holds.

        Raises NoInputError (there is no clip), StorageError, AuthError, ConfigError, UnavailableError, and what the
        fetcher's check raises: then what has been fetched stays, and the next call goes on from it.
        """
        fetcher.reporter.state("downloading")
        listed = fetcher.trying(source.listing)
        files, odd = wanted(listed)
        for name in odd:
            fetcher.reporter.info(f"{source.named}{name!r}: left out, no file can have that name beside the others")
        if not any(map(is_clip, files)):
            raise NoInputError(empty(source))
        with fetcher.locked(self.home):
            removed = self._remove_others(files)
            missing = self.missing(files)
            if missing:
                self._fetch(source, listed, missing, fetcher)
            self._note(source, listed, files)
        total = sum(item.bytes for item in files.values())
        fetcher.reporter.info(
            f"{source.named}: {len(files)} files, {size_text(total)}; {len(missing)} fetched, {removed} removed, "
            f"{len(files) - len(missing)} here from before"
        )
        return listed

    def _fetch(self, source: Source, listed: Listed, missing: Mapping[str, Item], fetcher: Fetcher) -> None:
        partials = self.home / "partial"
        partials.mkdir(parents=True, exist_ok=True)
        places = {name: partials / _digest(name, item) for name, item in missing.items()}
        for path in partials.iterdir():
            if path not in set(places.values()):
                path.unlink()  # of a content that is no longer asked for
        total, done = sum(item.bytes for item in missing.values()), sum(size_of(path) or 0 for path in places.values())
        require_room(self.home, source.named, total - done)
        went = f", {size_text(done)} of them here from before" if done else ""
        at = f" ({listed.commit[:12]})" if listed.commit else ""
        fetcher.reporter.info(f"downloading {source.named}{at}: {len(missing)} files, {size_text(total)}{went}")
        fetcher.begin(total, done)

        def left() -> int:
            return max(0, total - sum(size_of(self.files / name) or 0 for name in missing))

        with within_room(self.home, source.named, left), (self.home / _JOURNAL).open("a") as journal:
            for name, item in missing.items():
                fetcher.check()
                fetcher.fill(name, item.bytes, places[name], functools.partial(source.reading, listed, name))
                self._put(places[name], self.files / name)
                journal.write(json.dumps([name, asdict(item)]) + "\n")
                journal.flush()

    def _put(self, partial: Path, target: Path) -> None:
        sync(partial)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(partial, target)
        sync(target.parent)

    def _remove_others(self, files: Mapping[str, Item]) -> int:
        """Remove what the source does not hold, and folders that are empty then. Returns the number of files."""
        removed = 0
        for root, folders, names in os.walk(self.files, topdown=False):
            for name in names:
                path = Path(root, name)
                if path.relative_to(self.files).as_posix() not in files:
                    path.unlink()
                    removed += 1
            for name in folders:
                with contextlib.suppress(OSError):  # it is not empty
                    Path(root, name).rmdir()
        for name in files:  # a folder where a file is to be, left by the above only if it holds something wanted
            if (self.files / name).is_dir():
                shutil.rmtree(self.files / name)
        return removed

    def _note(self, source: Source, listed: Listed, files: Mapping[str, Item]) -> None:
        """Everything is here: one page instead of page and journal."""
        page: dict[str, Any] = {
            "source": source.named,
            "commit": listed.commit,
            "files": {name: asdict(item) for name, item in files.items()},
        }
        if page != read_page(self.home / _PAGE):
            write_json(self.home / _PAGE, page)
        (self.home / _JOURNAL).unlink(missing_ok=True)

    def _known(self) -> dict[str, Item]:
        """What the files that lie here were when they came."""
        known = {name: Item(**item) for name, item in read_page(self.home / _PAGE).get("files", {}).items()}
        with contextlib.suppress(FileNotFoundError):
            for line in (self.home / _JOURNAL).read_text().splitlines():
                with contextlib.suppress(ValueError):  # the last line of a killed process
                    name, item = json.loads(line)
                    known[name] = Item(**item)
        return known


def empty(source: Source) -> str:
    """What is said where a source holds no clip."""
    return f"{source.named}: there is no video file there yet; put the clips there, or correct the folder"


def _digest(name: str, item: Item) -> str:
    """The name of a partial file: another content is another file."""
    return hashlib.sha256(json.dumps([name, item.bytes, item.tag]).encode()).hexdigest()[:32]
