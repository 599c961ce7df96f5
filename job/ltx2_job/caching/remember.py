"""What was found out about files, kept in one small SQLite file beside the store. Torch-free.

Only shortcuts are kept here: losing the file costs time (everything is hashed and looked at again), never correctness.
A file's hash is remembered under its inode number, size, modification time and change time. The last one is set by the
kernel and by nobody else, so other content under the same name, size and modification time is noticed; a renamed or
touched file is merely hashed again. What is known about content (length, sound, reasons why it cannot be used) is
remembered under the content's hash.
"""

import contextlib
import hashlib
import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

_CHUNK: Final = 8 << 20
_PENDING: Final = 64  # writes between two commits: a killed process loses at most these shortcuts
_TICK: Final = 0.02  # seconds; kernels stamp changes with a clock that advances every 1 to 10 ms


class Memory:
    """A table of (scope, key) -> text. For one thread; a context manager.

    A file that cannot be used (damaged, no locks on this volume) is reported through `warn`, and nothing is remembered
    beyond this process.
    """

    def __init__(self, path: Path, warn: Callable[[str], None]):
        self._pending = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = _open(str(path))
        except sqlite3.Error as error:
            warn(f"{path}: cannot be used ({error}), so every file is looked at again; delete it if it is damaged")
            self._database = _open(":memory:")

    def __enter__(self) -> "Memory":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def get(self, scope: str, key: str) -> str | None:
        """What is remembered, or None."""
        row = self._database.execute("SELECT value FROM facts WHERE scope = ? AND key = ?", (scope, key)).fetchone()
        return None if row is None else row[0]

    def set(self, scope: str, key: str, value: str) -> None:
        """Remember."""
        self._database.execute("INSERT OR REPLACE INTO facts VALUES (?, ?, ?)", (scope, key, value))
        self._pending += 1
        if self._pending >= _PENDING:
            self.flush()

    def keys(self, scope: str) -> list[str]:
        """Every key of a scope."""
        rows = self._database.execute("SELECT key FROM facts WHERE scope = ? ORDER BY key", (scope,))
        return [row[0] for row in rows]

    def flush(self) -> None:
        """Write what is pending."""
        self._database.commit()
        self._pending = 0

    def close(self) -> None:
        """Write and let go of the file."""
        with contextlib.suppress(sqlite3.Error):  # only shortcuts would be lost
            self.flush()
        self._database.close()


def _open(name: str) -> sqlite3.Connection:
    database = sqlite3.connect(name, timeout=30)
    try:
        database.execute(
            "CREATE TABLE IF NOT EXISTS facts "
            "(scope TEXT, key TEXT, value TEXT, PRIMARY KEY (scope, key)) WITHOUT ROWID"
        )
        database.execute("SELECT 1 FROM facts LIMIT 1").fetchone()
    except sqlite3.Error:
        database.close()
        raise
    return database


def identity(path: Path) -> str:
    """What tells whether a file is still the one that was hashed. Raises OSError."""
    status = os.stat(path)
    return f"{status.st_ino}:{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}"


def settle(path: Path) -> None:
    """Wait until a change of the file would get another change time than it has now (20 ms after the last one).

    Otherwise bytes that are written right after they were hashed could hide behind the same time stamp.
    """
    age = time.time() - os.stat(path).st_ctime
    if 0 <= age < _TICK:
        time.sleep(_TICK - age)


def content_hash(path: Path) -> str:
    """sha256 (hex) of a file's bytes. Raises OSError."""
    settle(path)
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
