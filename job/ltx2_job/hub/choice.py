"""Which files of a repository a training needs: a pure function of its listing. Torch-free, no network.

Of the model exactly one combined file is taken, never the folders in diffusers' layout beside it; of the text encoder
its configuration, its tokenizer and one set of weights.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ltx2_job import places
from ltx2_job.errors import ConfigError, Problem
from ltx2_job.places import Repository

if TYPE_CHECKING:
    from ltx2_job.config import TrainingConfig

_NAMED: Final = 8  # candidates that an error lists
_INDEX: Final = ".safetensors.index.json"
_SMALL: Final = (".json", ".model", ".jinja", ".txt")  # configuration and tokenizer
_LAYOUTS: Final = (("text_encoder/", "tokenizer/"), ("", ""))  # in diffusers' layout, and as Gemma is published


@dataclass(frozen=True)
class Entry:
    """A file of a repository: its size in bytes, and its digest: `sha256:` of the bytes, or `git:` their blob's."""

    bytes: int
    digest: str


@dataclass(frozen=True)
class Listing:
    """What a repository holds at one commit."""

    repository: Repository
    commit: str
    files: Mapping[str, Entry]


@dataclass(frozen=True)
class Selection:
    """Files of one listing, and the one to open: a file, or "" for the folder as a whole."""

    listing: Listing
    names: tuple[str, ...]
    opened: str = ""


@dataclass(frozen=True)
class Choice:
    """The model and its text encoder, each a path of the workspace or files of a repository.

    gemma: None where it is looked for beside the model.
    """

    model: Path | Selection
    gemma: Path | Selection | None

    @property
    def selections(self) -> tuple[Selection, ...]:
        """What lies, or is to lie, below models/."""
        return tuple(each for each in (self.model, self.gemma) if isinstance(each, Selection))


def choose(config: "TrainingConfig", root: Path, listing_of: Callable[[Repository], Listing]) -> Choice:
    """What a configuration's model and text encoder are, in the workspace `root`.

    `listing_of` is asked for each repository. A path may be missing. Raises ConfigError for a name of neither form and
    for a repository without the wanted files, naming what it has, and whatever `listing_of` raises.
    """
    model = choose_model(config, root, listing_of)
    chosen = config.pretrained_gemma_model_name_or_path
    if chosen:
        gemma = places.place_of(chosen, root, places.GEMMA_KEY)
        return Choice(model, gemma if isinstance(gemma, Path) else text_encoder(listing_of(gemma)))
    if isinstance(model, Path):
        return Choice(model, None)
    own = model.listing
    if not _has_gemma(own.files):
        own = listing_of(Repository(places.DEFAULT_REPOSITORY))
    return Choice(model, text_encoder(own))


def choose_model(config: "TrainingConfig", root: Path, listing_of: Callable[[Repository], Listing]) -> Path | Selection:
    """The model alone, as `choose` finds it."""
    place = places.place_of(config.pretrained_model_name_or_path, root)
    return place if isinstance(place, Path) else combined(listing_of(place), config)


def combined(listing: Listing, config: "TrainingConfig") -> Selection:
    """The combined file: the one that ltx2_combined_filename names, else the flavour's.

    Raises ConfigError naming the candidates if the repository does not hold exactly one of that name.
    """
    wanted = config.ltx2_combined_filename or places.FILES[config.model_flavour]
    found = [name for name in listing.files if name == wanted]
    found = found or [name for name in listing.files if Path(name).name == wanted]
    if len(found) != 1:
        held = [name for name in listing.files if name.endswith(".safetensors") and not _is_part(name)]
        what = f"has {len(found)} files {wanted}" if found else f"has no {wanted}"
        has = f"it has {_some(found or held)}" if held else "it has no combined file; name a repository that has one"
        raise ConfigError(
            Problem(places.MODEL_KEY, f"{listing.repository} {what}",
                    has + ("; name one in ltx2_combined_filename" if held else ""))
        )  # fmt: skip
    return Selection(listing, (found[0],), found[0])


def text_encoder(listing: Listing) -> Selection:
    """Gemma's folder: configuration, tokenizer and one set of weights. Raises ConfigError if there is none."""
    files = listing.files
    for model, tokenizer in _LAYOUTS:
        if f"{model}config.json" in files and f"{tokenizer}tokenizer_config.json" in files:
            break
    else:
        raise ConfigError(
            Problem(places.GEMMA_KEY, f"{listing.repository} holds no Gemma 3 (config.json and tokenizer_config.json)",
                    "write google/gemma-3-12b-it, or the folder of a copy")
        )  # fmt: skip
    inside = [name for name in files if name.startswith(model) and "/" not in name.removeprefix(model)]
    weights = _weights(listing, [name for name in inside if name.endswith((".safetensors", _INDEX))])
    small = [
        name
        for name in files
        for folder in {model, tokenizer}
        if name.startswith(folder) and "/" not in name.removeprefix(folder)
        if name.endswith(_SMALL) and not name.endswith(_INDEX)
    ]
    return Selection(listing, tuple(sorted({*small, *weights})))


def _weights(listing: Listing, names: list[str]) -> list[str]:
    """One set among the weights of a folder: transformers' own (`model…`) where there are several."""
    indices = [name for name in names if name.endswith(_INDEX)]
    heads = indices or [name for name in names if name.endswith(".safetensors")]
    own = [name for name in heads if Path(name).name in (f"model{_INDEX}", "model.safetensors")]
    if len(heads) != 1 and len(own) != 1:
        raise ConfigError(
            Problem(places.GEMMA_KEY, f"{listing.repository} has {len(heads)} sets of weights for the text encoder "
                    f"({_some(heads)})", "name a repository or a folder with one")
        )  # fmt: skip
    head = own[0] if own else heads[0]
    if not head.endswith(_INDEX):
        return [head]
    stem = head.removesuffix(_INDEX)
    return [head, *(name for name in names if name.startswith(f"{stem}-") and name.endswith(".safetensors"))]


def _has_gemma(files: Mapping[str, Entry]) -> bool:
    return any(f"{model}config.json" in files and f"{tokenizer}tokenizer_config.json" in files
               for model, tokenizer in _LAYOUTS)  # fmt: skip


def _is_part(name: str) -> bool:
    """Whether a file belongs to a folder in diffusers' layout or to one of its shards."""
    return name.startswith(("text_encoder/", "transformer/", "vae/", "audio_vae/", "vocoder/", "connectors/"))


def _some(names: list[str]) -> str:
    listed = sorted(names)
    more = f" and {len(listed) - _NAMED} more" if len(listed) > _NAMED else ""
    return (", ".join(listed[:_NAMED]) or "none") + more
