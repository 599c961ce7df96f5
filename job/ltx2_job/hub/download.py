"""Fetching what a training needs from the Hub into models/: once, checked, resumable, one process at a time."""

import contextlib
import functools
import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ltx2_job.console import size_text
from ltx2_job.errors import UnavailableError
from ltx2_job.fetching import Fetcher, Reporter, require_room, within_room
from ltx2_job.hub.choice import Entry, Listing, Selection, choose
from ltx2_job.hub.client import Hub
from ltx2_job.hub.snapshot import PARTIAL, ModelFiles, NotDownloaded, Snapshots, require_paths
from ltx2_job.places import Repository
from ltx2_job.workspace import sync

if TYPE_CHECKING:
    from ltx2_job.config import TrainingConfig

_CHUNK: Final = 8 << 20  # bytes hashed between two looks at the wish to stop


@dataclass
class Downloader:
    """Fills a workspace's models/. `check` raises when somebody asked to stop; `sleep` waits for some seconds."""

    snapshots: Snapshots
    reporter: Reporter
    check: Callable[[], None]
    hub: Hub = field(default_factory=Hub)
    sleep: Callable[[float], None] = time.sleep

    def __post_init__(self) -> None:
        self._fetcher = Fetcher(self.reporter, self.check, self.sleep)

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
                    stack.enter_context(self._fetcher.locked(home))
                self._download([each for each in waiting if self.snapshots.missing(each)])  # another may have done it
            self.reporter.state("loading")
        return self.snapshots.opened(choice)

    def _listing(self, repository: Repository) -> Listing:
        try:
            return self.snapshots.listing(repository)
        except NotDownloaded:
            known = self.snapshots.commit(repository)  # the run keeps to its commit even if the folder is gone
            asked = Repository(repository.name, known) if known else repository
            found = self._fetcher.trying(lambda: self.hub.listing(asked))
            listing = replace(found, repository=repository)  # before the lock: a wrong name leaves no folder behind
            with self._fetcher.locked(self.snapshots.home(repository)):
                with contextlib.suppress(NotDownloaded):
                    return self.snapshots.listing(repository)  # another process was quicker
                self.snapshots.remember(listing, first=known is None)
            return listing

    def _download(self, selections: list[Selection]) -> None:
        if not selections:
            return
        models, what = self.snapshots.workspace.models, "the download"
        require_room(models, what, self.snapshots.left(selections))
        self._begin(selections)
        with within_room(models, what, lambda: self.snapshots.left(selections)):
            for selection in selections:
                for name, entry in self.snapshots.missing(selection).items():
                    target = self.snapshots.folder(selection.listing) / name
                    self._file(selection.listing, name, entry, target)
                    self.reporter.info(f"{target}: {size_text(entry.bytes)}, complete and checked")

    def _begin(self, selections: list[Selection]) -> None:
        missing = [entry for each in selections for entry in self.snapshots.missing(each).values()]
        total = sum(entry.bytes for entry in missing)
        begun = total - self.snapshots.left(selections)
        self._fetcher.begin(total, begun)
        names = ", ".join(f"{each.listing.repository} ({each.listing.commit[:12]})" for each in selections)
        went = f", {size_text(begun)} of them here from before" if begun else ""
        self.reporter.info(f"downloading {names}: {len(missing)} files, {size_text(total)}{went}")

    def _file(self, listing: Listing, name: str, entry: Entry, target: Path) -> None:
        """Fetch one file, check it, and put it under its name."""
        partial = target.with_name(target.name + PARTIAL)
        target.parent.mkdir(parents=True, exist_ok=True)
        self._fetcher.fill(name, entry.bytes, partial, functools.partial(self.hub.reading, listing, name))
        sync(partial)
        self._verify(listing, name, entry, partial)
        os.replace(partial, target)
        sync(target.parent)

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
