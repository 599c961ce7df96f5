"""What the name of a model means: a path in the workspace, or a repository on the Hub. Torch-free, no network.

An existing path of the workspace wins. A name that ends in .safetensors, that begins with /, ./, ../ or ~, or whose
first part is a folder of the workspace (models/…) is a path, there or not. Else `owner/name` is a repository of the
Hub, `owner/name@revision` that repository at a branch, tag or commit.
"""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from ltx2_job.errors import ConfigError, Problem
from ltx2_job.workspace import Workspace

MODEL_KEY: Final = "pretrained_model_name_or_path"
GEMMA_KEY: Final = "pretrained_gemma_model_name_or_path"

# The combined file of each flavour, as the model's makers name it, and the repository that holds it.
FILES: Final = {
    "dev": "ltx-2-19b-dev.safetensors",
    "2.3-dev": "ltx-2.3-22b-dev.safetensors",
    "2.3-distilled": "ltx-2.3-22b-distilled.safetensors",
}
DEFAULT_REPOSITORY: Final = "Lightricks/LTX-2"  # LTX-2.0, and the text encoder of every generation up to 2.3
REPOSITORIES: Final = {
    "dev": DEFAULT_REPOSITORY, "2.3-dev": "Lightricks/LTX-2.3", "2.3-distilled": "Lightricks/LTX-2.3",
}  # fmt: skip

MAIN: Final = "main"
_REPOSITORY: Final = re.compile(r"([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", re.ASCII)
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_PATH_STARTS: Final = ("/", "./", "../", "~")


@dataclass(frozen=True)
class Repository:
    """A repository on the Hub, at a branch, tag or commit.

    kind: what it holds. field: the key that names it, for messages.
    """

    name: str
    revision: str = MAIN
    kind: Literal["model", "dataset"] = "model"
    field: str = dataclasses.field(default=MODEL_KEY, compare=False)

    def __str__(self) -> str:
        return self.name if self.revision == MAIN else f"{self.name}@{self.revision}"

    @property
    def folder(self) -> str:
        """Its folder below models/: the owner and the name, readable and free of slashes."""
        return self.name.replace("/", "--")

    @property
    def is_pinned(self) -> bool:
        """Whether the revision is a whole commit, which can never mean something else later."""
        return _COMMIT.fullmatch(self.revision) is not None


def repository_of(name: str) -> Repository | None:
    """The repository that a name has the form of; None for the form of a path and for no form at all."""
    match = _REPOSITORY.fullmatch(name)
    if name.endswith(".safetensors") or name.startswith(_PATH_STARTS) or match is None:
        return None
    if ".." in name or "--" in match[1] or match[1].startswith(("-", ".")):
        return None  # the Hub has no such names, and `--` is what stands for the slash in a folder's name
    return Repository(match[1], match[2] or MAIN)


def place_of(name: str, root: Path, field: str = MODEL_KEY) -> Path | Repository:
    """What a name means in the workspace `root`. A path may be missing. Raises ConfigError for neither form."""
    path = Workspace(root).resolve(name)
    inside = "/" in name and (root / name.partition("/")[0]).is_dir()
    if path.exists() or inside or name.endswith(".safetensors") or name.startswith(_PATH_STARTS):
        return path
    repository = repository_of(name)
    if repository is None:
        raise ConfigError(
            Problem(
                field,
                f"{name!r} is no path of the workspace and no repository",
                "write a path such as models/ltx-2-19b-dev.safetensors or ./models/ltx-2, or owner/name of the Hub",
            )
        )
    return repository


def is_offline(environ: Mapping[str, str]) -> bool:
    """Whether HF_HUB_OFFLINE forbids to ask the Hub."""
    return environ.get("HF_HUB_OFFLINE", "").strip().lower() in ("1", "true", "yes", "on")


def moved(name: str, flavour: str) -> str | None:
    """The repository that holds a flavour which the default one does not; None where the name can stay."""
    wanted = REPOSITORIES.get(flavour, DEFAULT_REPOSITORY)
    return wanted if name == DEFAULT_REPOSITORY != wanted else None
