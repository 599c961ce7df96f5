"""Fetching what a training needs from the Hub into models/: once, checked, resumable, one process at a time."""

import contextlib
import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from ltx2_job.console import size_text
from ltx2_job.errors import StorageError, UnavailableError
from ltx2_job.hub.choice import Entry, Listing, Selection, choose
from ltx2_job.hub.client import Hub, Transient
from ltx2_job.hub.snapshot import PARTIAL, ModelFiles, NotDownloaded, Snapshots, require_paths
from ltx2_job.places import Repository
from ltx2_job.storage import FULL, free
from ltx2_job.workspace import sync

if TYPE_CHECKING:
    from ltx2_job.config import TrainingConfig

TRIES: Final = 6  # in a row without a new byte
SPARE: Final = 1 << 30  # bytes of the volume that a download leaves free
_CHUNK: Final = 8 << 20  # bytes hashed between two looks at the wish to stop
_LOCK: Final = ".lock"
_TOLD: Final = 0.5  # seconds between two words about the course
_LOOK: Final = 0.2  # seconds between two looks at the wish to stop while waiting


class Reporter(Protocol):
    """What a download tells: ltx2_job.reporter.Reporter does."""

    def state(self, name: str) -> None:
        """What is done now."""

    def info(self, message: str) -> None:
        """A line for people."""

    def transfer(self, name: str, done: int, total: int, rate: float | None) -> None:
        """`done` of `total` bytes are here, `rate` bytes a second come; None before that is known."""


@dataclass
class Downloader:
    """Fills a workspace's models/. `check` raises when somebody asked to stop; `sleep` waits for some seconds."""

    snapshots: Snapshots
    reporter: Reporter
    check: Callable[[], None]
    hub: Hub = field(default_factory=Hub)
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic

    def fetch(self, config: "TrainingConfig") -> ModelFiles:
        """The model and text encoder of a configuration, downloaded if they are not here yet.

        The network is asked only for what is missing. Raises AuthError, ConfigError, NoInputError, StorageError,
        UnavailableError, and what `check` raises; then what has been fetched stays, and the next call goes on from it.
        """
        choice = choose(config, self.snapshots.workspace.root, self._listing)
        require_paths(choice, config)
        waiting = [each for each in choice.selections if self.snapshots.missing(each)]
        if waiting:
            self.reporter.state("downloading")
            with contextlib.ExitStack() as stack:
                for home in sorted({self.snapshots.home(each.listing.repository) for each in waiting}):
                    stack.enter_context(self._locked(home))
                self._download([each for each in waiting if self.snapshots.missing(each)])  # another may have done it
            self.reporter.state("loading")
        return self.snapshots.opened(choice)

    def _listing(self, repository: Repository) -> Listing:
        try:
            return self.snapshots.listing(repository)
        except NotDownloaded:
            known = self.snapshots.commit(repository)  # the run keeps to its commit even if the folder is gone
            asked = Repository(repository.name, known) if known else repository
            listing = Listing(repository, *self._asked(asked))  # before the lock: a wrong name leaves no folder behind
            with self._locked(self.snapshots.home(repository)):
                with contextlib.suppress(NotDownloaded):
                    return self.snapshots.listing(repository)  # another process was quicker
                self.snapshots.remember(listing, first=known is None)
            return listing

    def _asked(self, repository: Repository) -> tuple[str, dict[str, Entry]]:
        tries = 0
        while True:
            try:
                found = self.hub.listing(repository)
                return found.commit, dict(found.files)
            except Transient as error:
                tries += 1
                self._again(tries, str(error))

    def _download(self, selections: list[Selection]) -> None:
        if not selections:
            return
        need = self.snapshots.left(selections)
        spare = min(SPARE, need)
        if need + spare > free(self.snapshots.workspace.models):
            raise self._no_space(need, spare)
        self._begin(selections)
        try:
            for selection in selections:
                for name, entry in self.snapshots.missing(selection).items():
                    target = self.snapshots.folder(selection.listing) / name
                    self._file(selection.listing, name, entry, target)
                    self.reporter.info(f"{target}: {size_text(entry.bytes)}, complete and checked")
        except OSError as error:
            if error.errno in FULL:
                raise self._no_space(self.snapshots.left(selections)) from None
            raise

    def _no_space(self, need: int, spare: int = 0) -> StorageError:
        models = self.snapshots.workspace.models
        left = free(models)
        besides = f" and leaves {size_text(spare)} for the run" if spare and need <= left else ""
        return StorageError(
            f"{models}: the download needs {size_text(need)} more{besides}, {size_text(left)} are free; grow the "
            "volume or make room, then run again: what has been fetched is kept"
        )

    def _begin(self, selections: list[Selection]) -> None:
        missing = [entry for each in selections for entry in self.snapshots.missing(each).values()]
        self._total, self._start = sum(entry.bytes for entry in missing), self.clock()
        self._done = begun = self._total - self.snapshots.left(selections)
        self._fresh, self._told = 0, self._start - _TOLD
        names = ", ".join(f"{each.listing.repository} ({each.listing.commit[:12]})" for each in selections)
        went = f", {size_text(begun)} of them here from before" if begun else ""
        self.reporter.info(f"downloading {names}: {len(missing)} files, {size_text(self._total)}{went}")

    def _file(self, listing: Listing, name: str, entry: Entry, target: Path) -> None:
        """Fetch one file, check it, and put it under its name."""
        partial = target.with_name(target.name + PARTIAL)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.touch()
        if partial.stat().st_size > entry.bytes:
            os.truncate(partial, 0)
        tries = 0
        while (have := partial.stat().st_size) < entry.bytes:
            try:
                self._append(listing, name, entry, partial)
            except Transient as error:
                tries = 1 if partial.stat().st_size > have else tries + 1
                self._again(tries, f"{name}: {error}")
        sync(partial)
        self._verify(listing, name, entry, partial)
        os.replace(partial, target)
        sync(target.parent)

    def _append(self, listing: Listing, name: str, entry: Entry, partial: Path) -> None:
        """Add what one answer brings. Raises Transient if it is cut, and for an answer that is too long."""
        have = partial.stat().st_size
        with self.hub.reading(listing, name, have) as (begin, chunks), partial.open("r+b", buffering=0) as file:
            file.seek(begin)
            file.truncate()
            self._done -= have - begin
            for chunk in chunks:
                self.check()
                if file.tell() + len(chunk) > entry.bytes:
                    self._done -= file.tell()
                    file.truncate(0)
                    raise Transient(f"more bytes than the {entry.bytes} that are listed")
                file.write(chunk)
                self._tell(name, len(chunk))
            if file.tell() < entry.bytes:
                raise Transient(f"cut after {file.tell()} of {entry.bytes} bytes")

    def _tell(self, name: str, count: int) -> None:
        self._done += count
        self._fresh += count
        now = self.clock()
        if now - self._told >= _TOLD or self._done >= self._total:
            self._told = now
            rate = self._fresh / (now - self._start) if now > self._start else None
            self.reporter.transfer(name, self._done, self._total, rate)

    def _verify(self, listing: Listing, name: str, entry: Entry, partial: Path) -> None:
        """Compare the digest; remove what differs. Raises UnavailableError: the next try may get the right bytes."""
        kind, _, wanted = entry.digest.partition(":")
        digest = hashlib.sha256() if kind == "sha256" else hashlib.sha1(b"blob %d\0" % entry.bytes)
        with partial.open("rb") as file:
            while chunk := file.read(_CHUNK):
                self.check()
                digest.update(chunk)
        if digest.hexdigest() != wanted:
            partial.unlink()
            raise UnavailableError(
                f"{listing.repository}: {name} came with other bytes than the Hub lists ({kind} {digest.hexdigest()}, "
                f"not {wanted}) and was removed; run again, and look at proxies and mirrors if it happens twice"
            )

    def _again(self, tries: int, why: str) -> None:
        """Wait before another try, longer each time. Raises UnavailableError after the last."""
        if tries >= TRIES:
            raise UnavailableError(f"not reachable: {why}; what has been fetched is kept, run again later")
        self.reporter.info(f"{why}; try {tries + 1} of {TRIES}")
        self._wait(2.0 ** (tries - 1))

    def _wait(self, seconds: float) -> None:
        while seconds > 0:
            self.check()
            self.sleep(min(seconds, _LOOK))
            seconds -= _LOOK

    @contextlib.contextmanager
    def _locked(self, home: Path) -> Iterator[None]:
        """One process at a time per repository; the others wait and say so.

        A volume without locks holds nobody back: two at once then cost traffic, and the digest tells what is whole.
        """
        home.mkdir(parents=True, exist_ok=True)
        with (home / _LOCK).open("a") as file:
            told = False
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if not told:
                        self.reporter.info(f"{home}: another process downloads; waiting for it")
                        told = True
                    self._wait(_LOOK)
                except OSError:
                    break
            yield
