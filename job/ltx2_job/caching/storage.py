"""What a full or read-only volume means for the cache stage, said with numbers and a remedy. Torch-free."""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ltx2_job.caching.survey import name_of
from ltx2_job.errors import StorageError

if TYPE_CHECKING:
    from ltx2_job.stage import Stage

_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
_CLOSED: Final = (errno.EACCES, errno.EPERM, errno.EROFS)
_GIB: Final = 1 << 30


def gib(size: int) -> str:
    """A size in bytes as people read it."""
    return f"{size / _GIB:.1f} GiB" if size < 10 * _GIB else f"{size / _GIB:.0f} GiB"


@contextmanager
def writing(stage: "Stage", root: Path, needed: Callable[[], int]) -> Iterator[None]:
    """Turn the volume's errors of the body into StorageError; others pass. `needed`: bytes still to be written."""
    try:
        yield
    except OSError as error:
        named = name_of(Path(error.filename or root), stage.workspace.root)
        if error.errno in _FULL:
            raise full(stage, root, needed()) from error
        if error.errno in _CLOSED:
            raise StorageError(
                f"{named}: {error.strerror} for user {os.geteuid()}; make the folder writable for it (fsGroup, chown), "
                f"then `ltx2 retry {stage.run_name}`: nothing is lost"
            ) from error
        raise


def require_space(stage: "Stage", root: Path, needed: int) -> None:
    """Raise StorageError now rather than after hours if the volume cannot hold what is certain to be written."""
    if needed > _free(root):
        raise full(stage, root, needed)


def full(stage: "Stage", root: Path, needed: int) -> StorageError:
    """The error of a volume without space for `needed` more bytes."""
    return StorageError(
        f"{name_of(root, stage.workspace.root)}/: no space left (needs about {gib(needed)} more, "
        f"{gib(_free(root))} free); grow the claim {stage.run_name}-data or free space with `ltx2 cache gc`, "
        f"then `ltx2 retry {stage.run_name}`: nothing is lost"
    )


def _free(root: Path) -> int:
    while not root.exists():
        root = root.parent
    return shutil.disk_usage(root).free
