"""The one way from a configuration to the files of its model, for whoever may use the network."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from ltx2_job.hub.snapshot import ModelFiles, NotDownloaded, Snapshots

if TYPE_CHECKING:
    from ltx2_job.config import TrainingConfig
    from ltx2_job.fetching import Reporter


def obtain(
    snapshots: Snapshots, config: "TrainingConfig", reporter: "Reporter", check: Callable[[], None]
) -> ModelFiles:
    """Model and text encoder: from the workspace, else from the Hub.

    The libraries of the network are imported only if something is missing. `check` raises when somebody asked to stop.
    Raises as Snapshots.find and Downloader.fetch.
    """
    try:
        return snapshots.find(config)
    except NotDownloaded:
        from ltx2_job.hub.download import Downloader

        return Downloader(snapshots, reporter, check).fetch(config)
