"""Clips in a data set repository of the Hub."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from ltx2_job.hub.choice import Listing
from ltx2_job.hub.client import Hub
from ltx2_job.mirror import place
from ltx2_job.mirror.source import Item, Listed, is_clip
from ltx2_job.places import Repository

if TYPE_CHECKING:
    from ltx2_job.config import DatasetConfig


class HubDataset:
    """The files of a dataset's repository below its folder, at `commit` if that is known already."""

    def __init__(self, dataset: "DatasetConfig", commit: str | None = None):
        self.named = place.named(dataset)
        self._hub, self._prefix = Hub(), place.prefix_of(dataset)
        revision, field = commit or dataset.revision, f"datasets[{dataset.id}].dataset_name"
        self._repository = Repository(str(dataset.dataset_name), revision, "dataset", field)

    def listing(self) -> Listed:
        """The files at the revision, and the commit that it means now."""
        found = self._hub.listing(self._repository)
        files = {
            name.removeprefix(self._prefix): Item(entry.bytes, entry.digest)
            for name, entry in found.files.items()
            if name.startswith(self._prefix)
        }
        return Listed(files, found.commit)

    def has_clip(self) -> bool:
        """Whether there is one."""
        return any(map(is_clip, self.listing().files))

    def reading(self, listed: Listed, name: str, begin: int) -> AbstractContextManager[tuple[int, Iterator[bytes]]]:
        """The bytes of a file at the listed commit."""
        listing = Listing(self._repository, str(listed.commit), {})
        return self._hub.reading(listing, f"{self._prefix}{name}", begin)
