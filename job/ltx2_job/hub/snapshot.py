"""What was downloaded, as it lies in a workspace's models/. Torch-free, no network: every stage may ask.

    models/
      Lightricks--LTX-2/
        revisions.json                    {"main": "<commit>"}: what a name meant when it was first asked for
        <first 12 digits of the commit>/
          repository.json                 the listing: name, commit, and for each file its bytes and digest
          ltx-2-19b-dev.safetensors       complete and checked, or absent
          ltx-2-19b-dev.safetensors.partial   what a download that was cut has fetched so far
          text_encoder/…  tokenizer/…

A commit never changes, so a listing is asked for once; which files are needed and whether they are there follows from
it and the disk.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ltx2_job import places
from ltx2_job.errors import NoInputError
from ltx2_job.hub.choice import Choice, Entry, Listing, Selection, choose, choose_model
from ltx2_job.places import Repository
from ltx2_job.workspace import RunFolder, Workspace, read_page, size_of, write_json

if TYPE_CHECKING:
    from ltx2_job.config import TrainingConfig

PARTIAL: Final = ".partial"
REVISIONS: Final = "revisions.json"
REPOSITORY: Final = "repository.json"
_SHORT: Final = 12  # digits of a commit in a folder's name


class NotDownloaded(NoInputError):
    """A repository's files are not in the workspace yet."""


@dataclass(frozen=True)
class ModelFiles:
    """What to open: the model, and the folder of its text encoder (None: it is looked for beside the model)."""

    model: Path
    gemma: Path | None


@dataclass(frozen=True)
class Holding:
    """What is here of a repository at a commit: bytes of complete files, and of files that are still being fetched."""

    repository: str
    commit: str
    files: int
    bytes: int
    begun: int


@dataclass(frozen=True)
class Snapshots:
    """The repositories of one workspace. `run`: the run whose own record of commits comes first, if there is one."""

    workspace: Workspace
    run: RunFolder | None = None

    def home(self, repository: Repository) -> Path:
        """The folder of a repository, all its commits."""
        return Path(self.workspace.models) / repository.folder

    def folder(self, listing: Listing) -> Path:
        """The folder of a commit."""
        return self.home(listing.repository) / listing.commit[:_SHORT]

    def commit(self, repository: Repository) -> str | None:
        """The commit that a repository's revision stands for, as far as it is known here."""
        if repository.is_pinned:
            return repository.revision
        recorded = read_page(self.run.model).get("commits") if self.run is not None else None
        known = (recorded or {}).get(str(repository)) or read_page(self.home(repository) / REVISIONS).get(
            repository.revision
        )
        return str(known) if known else None

    def listing(self, repository: Repository) -> Listing:
        """The stored listing. Raises NotDownloaded if there is none."""
        commit = self.commit(repository)
        page = read_page(self.home(repository) / commit[:_SHORT] / REPOSITORY) if commit else {}
        if not page:
            raise NotDownloaded(f"{repository}: not downloaded yet to {self.home(repository)}")
        files = {name: Entry(int(entry["bytes"]), str(entry["digest"])) for name, entry in page["files"].items()}
        return Listing(repository, str(page["commit"]), files)

    def remember(self, listing: Listing, *, first: bool) -> None:
        """Store a listing; `first`: also as what its revision means from now on."""
        files = {name: asdict(entry) for name, entry in listing.files.items()}
        page = {"repository": listing.repository.name, "commit": listing.commit, "files": files}
        write_json(self.folder(listing) / REPOSITORY, page)
        if first and not listing.repository.is_pinned:
            known = self.home(listing.repository) / REVISIONS
            write_json(known, read_page(known) | {listing.repository.revision: listing.commit})

    def missing(self, selection: Selection) -> dict[str, Entry]:
        """The files of a selection that are not complete."""
        folder = self.folder(selection.listing)
        entries = {name: selection.listing.files[name] for name in selection.names}
        return {name: entry for name, entry in entries.items() if size_of(folder / name) != entry.bytes}

    def begun(self, selection: Selection) -> int:
        """Bytes of missing files that an earlier download has fetched."""
        folder = self.folder(selection.listing)
        return sum(size_of(folder / f"{name}{PARTIAL}") or 0 for name in self.missing(selection))

    def left(self, selections: Iterable[Selection]) -> int:
        """Bytes that are still to be fetched."""
        return sum(sum(entry.bytes for entry in self.missing(each).values()) - self.begun(each) for each in selections)

    def path(self, place: Path | Selection) -> Path:
        """What is opened of a place, complete or not."""
        return place if isinstance(place, Path) else self.folder(place.listing) / place.opened

    def opened(self, choice: Choice) -> ModelFiles:
        """What is opened of a choice, complete or not."""
        return ModelFiles(self.path(choice.model), None if choice.gemma is None else self.path(choice.gemma))

    def find(self, config: "TrainingConfig") -> ModelFiles:
        """The model and text encoder of a configuration, all of whose files are here.

        Raises NoInputError (NotDownloaded for files of the Hub) if something is missing, ConfigError for a name without
        a meaning and for a repository without the wanted file.
        """
        choice = choose(config, self.workspace.root, self.listing)
        require_paths(choice, config)
        self._require(choice.selections)
        return self.opened(choice)

    def find_model(self, config: "TrainingConfig") -> Path:
        """The model alone, for the stages after the cache stage, which need no text encoder. Raises as `find`."""
        place = choose_model(config, self.workspace.root, self.listing)
        require_paths(Choice(place, None), config)
        self._require((place,) if isinstance(place, Selection) else ())
        return self.path(place)

    def _require(self, selections: Iterable[Selection]) -> None:
        for selection in selections:
            if missing := self.missing(selection):
                raise NotDownloaded(
                    f"{selection.listing.repository}: {len(missing)} of {len(selection.names)} files are not complete "
                    f"in {self.folder(selection.listing)}, such as {next(iter(missing))}; the cache stage downloads "
                    "them: run it again"
                )

    def holdings(self) -> list[Holding]:
        """Everything that was downloaded into the workspace, by repository and commit."""
        found = []
        for path in sorted(Path(self.workspace.models).glob(f"*--*/*/{REPOSITORY}")):
            page = read_page(path)
            listed = page.get("files") or {}
            whole = [size for name in listed if (size := size_of(path.parent / name)) is not None]
            begun = sum(size_of(path.parent / f"{name}{PARTIAL}") or 0 for name in listed)
            found.append(Holding(str(page.get("repository")), str(page.get("commit")), len(whole), sum(whole), begun))
        return found

    def record(self, config: "TrainingConfig") -> None:
        """Write the run's model.json: what it uses, and the commits that it keeps to."""
        if self.run is None:
            return
        choice = choose(config, self.workspace.root, self.listing)
        files = self.opened(choice)
        write_json(
            self.run.model,
            {
                "model": self._shown(files.model),
                "textEncoder": self._shown(files.gemma) if files.gemma is not None else None,
                "commits": {str(each.listing.repository): each.listing.commit for each in choice.selections},
            },
        )

    def _shown(self, path: Path) -> str:
        root = self.workspace.root
        return str(path.relative_to(root) if path.is_relative_to(root) else path)


def require_paths(choice: Choice, config: "TrainingConfig") -> None:
    """Raise NoInputError for a path that is not there."""
    chosen = ((places.MODEL_KEY, "the checkpoint", choice.model), (places.GEMMA_KEY, "Gemma 3", choice.gemma))
    for key, what, place in chosen:
        if isinstance(place, Path) and not place.exists():
            raise NoInputError(
                f"{key}: {getattr(config, key)}: {what} is not there ({place}); put {what} there, or name another path "
                "or a repository of the Hub (owner/name)"
            )
