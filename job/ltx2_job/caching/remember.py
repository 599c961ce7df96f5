"""What was found out about files, kept in one small SQLite file beside the store. Torch-free.

Only shortcuts are kept here: losing the file costs time (everything is hashed and looked at again), never correctness.
A file's hash is remembered under its inode number, size, modification time and change time. The last one is set by the
kernel and by nobody else, so other content under the same name, size and modification time is noticed; a renamed or
touched file is merely hashed again. What is known about content (length, sound, reasons why it cannot be used) is
remembered under the content's hash.
"""

import hashlib
import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

_CHUNK: Final = 8 << 20
_PENDING: Final = 64  # facts between two writes: a killed process loses at most these shortcuts
_TICK: Final = 0.02  # seconds; kernels stamp changes with a clock that advances every 1 to 10 ms


class Memory:
    """A table of (scope, key) -> text. For one thread; a context manager.

    New facts are collected and written together, so that the file's lock is held for moments only: several cache stages
    may share it. A file that cannot be used (damaged, no locks on this volume) is reported through `warn`, at the start
    or when it shows later, and from then on nothing is remembered beyond this process.
    """

    def __init__(self, path: Path, warn: Callable[[str], None]):
        self._path, self._warn = path, warn
        self._pending: dict[tuple[str, str], str] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = _open(str(path))
        except sqlite3.Error as error:
            self._give_up(error)

    def __enter__(self) -> "Memory":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def get(self, scope: str, key: str) -> str | None:
        """What is remembered, or None."""
        if (scope, key) in self._pending:
            return self._pending[scope, key]
        rows = self._read("SELECT value FROM facts WHERE scope = ? AND key = ?", scope, key)
        return rows[0] if rows else None

    def set(self, scope: str, key: str, value: str) -> None:
        """Remember."""
        self._pending[scope, key] = value
        if len(self._pending) >= _PENDING:
            self.flush()

    def flush(self) -> None:
        """Write what is pending."""
        try:
            self._write()
        except sqlite3.Error as error:
            self._give_up(error)
            self._write()
        self._pending.clear()

    def close(self) -> None:
        """Write and let go of the file."""
        self.flush()
        self._database.close()

    def _read(self, query: str, *values: str) -> list[str]:
        """The first column of a query's rows."""
        try:
            return [row[0] for row in self._database.execute(query, values)]
        except sqlite3.Error as error:
            self._give_up(error)
            return []

    def _write(self) -> None:
        with self._database:  # one transaction
            rows = ((scope, key, value) for (scope, key), value in self._pending.items())
            self._database.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?, ?)", rows)

    def _give_up(self, error: sqlite3.Error) -> None:
        """Go on without the file."""
        self._warn(
            f"{self._path}: cannot be used ({error}), so every file is looked at again; delete it if it is damaged"
        )
        self._database = _open(":memory:")


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
