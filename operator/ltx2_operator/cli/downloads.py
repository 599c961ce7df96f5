"""What a run will download before it can begin, seen from this machine and without the network."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ltx2_job import estimate
from ltx2_job.config import TrainingConfig
from ltx2_job.errors import NoInputError, StorageError
from ltx2_job.estimate import Model
from ltx2_job.hub.choice import choose
from ltx2_job.hub.snapshot import NotDownloaded, Snapshots
from ltx2_job.places import GEMMA_KEY, Repository, is_offline, place_of
from ltx2_job.workspace import Workspace
from ltx2_operator.accept import size_text


@dataclass(frozen=True)
class Download:
    """What is still to be fetched. exact: the repositories' listings are here, else the sizes are the flavour's."""

    repositories: tuple[str, ...]
    bytes: int
    exact: bool

    def __str__(self) -> str:
        about = "" if self.exact else "about "
        return f"{' and '.join(self.repositories)}: {about}{size_text(self.bytes)} will be downloaded to models/"


def pending(config: TrainingConfig, workspace: Workspace, model: Model) -> Download | None:
    """The download that a run begins with, None if nothing is missing. `model`: sizes to expect.

    Raises ConfigError for a name that is neither a path nor a repository.
    """
    snapshots = Snapshots(workspace)
    try:
        selections = choose(config, workspace.root, snapshots.listing).selections
        waiting = [each for each in selections if snapshots.missing(each)]
        names = tuple(dict.fromkeys(str(each.listing.repository) for each in waiting))
        return Download(names, snapshots.left(waiting), exact=True) if waiting else None
    except NotDownloaded:
        file, text_encoder = estimate.download_bytes(model)
        place = place_of(config.pretrained_model_name_or_path, workspace.root)
        chosen = config.pretrained_gemma_model_name_or_path
        gemma = place_of(chosen, workspace.root, GEMMA_KEY) if chosen else place
        names = tuple(dict.fromkeys(str(each) for each in (place, gemma) if isinstance(each, Repository)))
        size = file * isinstance(place, Repository) + text_encoder * isinstance(gemma, Repository)
        return Download(names, size, exact=False)


def require(download: Download, workspace: Workspace, environ: Mapping[str, str] = os.environ) -> None:
    """Raise StorageError if the disk has no room for a download, NoInputError if HF_HUB_OFFLINE forbids it."""
    if is_offline(environ):
        raise NoInputError(
            f"{download}, which HF_HUB_OFFLINE forbids; copy the files there from a machine that has them "
            "(docs/models.md), or unset HF_HUB_OFFLINE"
        )
    free = shutil.disk_usage(_existing(workspace.models)).free
    if download.bytes > free:
        raise StorageError(
            f"{workspace.models}: {download}, {size_text(free)} are free; make room, or give another --workspace"
        )


def _existing(folder: Path) -> Path:
    return folder if folder.exists() else _existing(folder.absolute().parent)
