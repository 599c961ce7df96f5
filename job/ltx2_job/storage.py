"""What a full or read-only volume means, said with numbers and a remedy. Torch-free."""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ltx2_job.console import size_text
from ltx2_job.errors import StorageError
from ltx2_job.workspace import name_of

if TYPE_CHECKING:
    from ltx2_job.stage import Stage

FULL: Final = (errno.ENOSPC, errno.EDQUOT)
AGAIN: Final = "run it again (on a cluster: `ltx2 retry {}`): nothing is lost"
CLOSED: Final = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextmanager
def writing(stage: "Stage", root: Path, needed: Callable[[], int]) -> Iterator[None]:
    """Turn the volume's errors of the body into StorageError; others pass.

    root: what is written to, where the error does not name a file. needed: bytes still to be written.
    """
    try:
        yield
    except OSError as error:
        named = name_of(Path(os.fsdecode(error.filename or root)), stage.workspace.root)
        if error.errno in FULL:
            raise full(stage, root, needed(), named) from error
        if error.errno in CLOSED:
            raise StorageError(
                f"{named}: {error.strerror} for user {os.geteuid()}; make the folder writable for it (fsGroup, chown), "
                f"then {AGAIN.format(stage.run_name)}"
            ) from error
        raise


def require_space(stage: "Stage", root: Path, needed: int) -> None:
    """Raise StorageError now rather than after hours if the volume cannot hold what is certain to be written."""
    if needed > free(root):
        raise full(stage, root, needed)


def full(stage: "Stage", root: Path, needed: int, named: str = "") -> StorageError:
    """The error of a volume without space for `needed` more bytes; `named`: the file that met it."""
    where = named or f"{name_of(root, stage.workspace.root)}/"
    wanted = f"needs about {size_text(needed)} more, " if needed else ""  # a page of text is not worth a number
    return StorageError(
        f"{where}: no space left ({wanted}{size_text(free(root))} free); "
        f"make room there (on a cluster: grow the claim, spec.storage.claimName or {stage.run_name}-data; on one "
        f"machine `ltx2 cache gc` frees what no run uses), then {AGAIN.format(stage.run_name)}"
    )


def free(path: Path) -> int:
    """Bytes free on the volume that a path is on, or would be on."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free
