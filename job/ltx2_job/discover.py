"""Finding the clips of a dataset. Torch-free."""

import os
from pathlib import Path
from typing import Final

from ltx2_job.errors import NoInputError

EXTENSIONS: Final = (
    ".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp", ".ogv",
)  # fmt: skip
_REMEDY: Final = "put the clips there, or name the folder that holds them"


def find_clips(folder: Path, named: str) -> list[Path]:
    """Every video file below a folder, sorted by path.

    A video file is one whose name ends with one of EXTENSIONS, in any case. Names that begin with a dot are left out,
    folders as well (what file managers and version control put there is no footage). Links are followed, each folder
    once. Raises NoInputError if the folder or the first clip is not there yet, or cannot be read; `named` is the folder
    as messages shall name it.
    """
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.is_file() else "there is no such folder yet"
        raise NoInputError(f"{named}: {what}; {_REMEDY}")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise NoInputError(f"{named}: this user may not read the folder; chmod it, or run as its owner")
    found: list[Path] = []
    seen: set[str] = set()
    for root, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(root)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [
            Path(root, name)
            for name in files
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in EXTENSIONS
        ]
    if not found:
        raise NoInputError(f"{named}: there is no video file in it yet ({', '.join(EXTENSIONS)}); {_REMEDY}")
    return sorted(found)
