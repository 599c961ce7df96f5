"""The datasets of a run that lie elsewhere: brought to the volume, or asked whether there is anything at all.

The libraries of the network are imported only where a dataset needs them.
"""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from ltx2_job.console import size_text
from ltx2_job.errors import JobError, NoInputError, UnavailableError
from ltx2_job.fetching import Fetcher, Reporter, Transient
from ltx2_job.mirror import place
from ltx2_job.mirror.source import Source, is_clip, wanted
from ltx2_job.mirror.sync import Mirror, empty
from ltx2_job.workspace import RunFolder, Workspace, read_json, write_json

if TYPE_CHECKING:
    from ltx2_job.config import DatasetConfig


def bring(
    datasets: Iterable["DatasetConfig"],
    workspace: Workspace,
    run: RunFolder,
    reporter: Reporter,
    check: Callable[[], None],
) -> None:
    """Bring the mirror of every dataset that lies elsewhere up to date. Raises as Mirror.update.

    A run keeps to the commit that a revision meant when it first asked, and then asks no more while that lies here.
    """
    commits, fetcher = _commits(run), Fetcher(reporter, check)
    for dataset in datasets:
        if not place.is_remote(dataset):
            continue
        mirror, name = Mirror(place.home(workspace, dataset)), place.named(dataset)
        if name in commits and mirror.commit() == commits[name]:
            continue
        listed = mirror.update(source_of(dataset, commits.get(name)), fetcher)
        if listed.commit is not None and listed.commit != commits.get(name):
            commits[name] = listed.commit
            write_json(run.sources, commits)
        reporter.state("loading")


def require(dataset: "DatasetConfig", run: RunFolder) -> None:
    """Raise NoInputError if a dataset that lies elsewhere has no clip there.

    Raises AuthError, ConfigError, UnavailableError where it cannot be asked.
    """
    source = source_of(dataset, _commits(run).get(place.named(dataset)))
    try:
        if not source.has_clip():
            raise NoInputError(empty(source))
    except Transient as error:
        raise UnavailableError(f"not reachable: {error}") from None


def described(dataset: "DatasetConfig", workspace: Workspace) -> str:
    """What lies there, in a line; why it cannot be said, where it cannot be asked from here."""
    try:
        source: Source = source_of(dataset)
        files, odd = wanted(source.listing())
    except (JobError, Transient) as error:
        return f"not looked at from here: {error}"
    clips = sum(map(is_clip, files))
    if not clips:
        return empty(source)
    left = sum(item.bytes for item in Mirror(place.home(workspace, dataset)).missing(files).values())
    total = size_text(sum(item.bytes for item in files.values()))
    named = f", {len(odd)} left out for their names" if odd else ""
    coming = f"{size_text(left)} will be downloaded to downloads/" if left else "all of it is here"
    return f"{source.named}: {clips} clips and {len(files) - clips} captions, {total}; {coming}{named}"


def source_of(dataset: "DatasetConfig", commit: str | None = None) -> Source:
    """The source of a dataset; `commit`: that a repository is kept to. Raises AuthError, ConfigError."""
    if dataset.type == "aws":
        from ltx2_job.mirror.s3 import ObjectStore

        return ObjectStore(dataset)
    from ltx2_job.mirror.hub import HubDataset

    return HubDataset(dataset, commit)


def _commits(run: RunFolder) -> dict[str, str]:
    """The commits that a run keeps to, by the place's name."""
    try:
        return dict(read_json(run.sources))
    except (OSError, ValueError, TypeError):
        return {}
