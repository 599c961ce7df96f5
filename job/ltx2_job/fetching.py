"""Fetching files over a network: tried again, gone on with, told about, one process at a time. Torch-free."""

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, TypeVar

from ltx2_job.console import size_text
from ltx2_job.errors import StorageError, UnavailableError
from ltx2_job.storage import FULL, free

T = TypeVar("T")

TRIES: Final = 6  # in a row without a new byte
SPARE: Final = 1 << 30  # bytes of the volume that a download leaves free
_LOCK: Final = ".lock"
_TOLD: Final = 0.5  # seconds between two words about the course
_LOOK: Final = 0.2  # seconds between two looks at the wish to stop while waiting

Reading = Callable[[int], AbstractContextManager[tuple[int, Iterator[bytes]]]]
"""Opens a file from a position on: gives the position of the first byte that comes, and chunks."""


class Transient(Exception):
    """The other side or the way to it failed in a way that another try may not meet. `str()` says how."""


class Reporter(Protocol):
    """What a download tells: ltx2_job.reporter.Reporter does."""

    def state(self, name: str) -> None:
        """What is done now."""

    def info(self, message: str) -> None:
        """A line for people."""

    def transfer(self, name: str, done: int, total: int, rate: float | None) -> None:
        """`done` of `total` bytes are here, `rate` bytes a second come; None before that is known."""


@dataclass
class Fetcher:
    """One download. `check` raises when somebody asked to stop; `sleep` waits for some seconds."""

    reporter: Reporter
    check: Callable[[], None]
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic

    def begin(self, total: int, done: int) -> None:
        """Count from here: `total` bytes, `done` of them from before."""
        self._total, self._done, self._start = total, done, self.clock()
        self._fresh, self._told = 0, self._start - _TOLD

    def fill(self, name: str, size: int, partial: Path, reading: Reading) -> None:
        """Bring a partial file to its `size`, from where it stands. Raises UnavailableError after the last try."""
        partial.touch()
        if partial.stat().st_size > size:
            os.truncate(partial, 0)
        tries = 0
        while (have := partial.stat().st_size) < size:
            try:
                self._append(name, size, partial, reading)
            except Transient as error:
                tries = 1 if partial.stat().st_size > have else tries + 1
                self.again(tries, f"{name}: {error}")

    def trying(self, ask: Callable[[], T]) -> T:
        """What a question gives, asked again where it is Transient. Raises UnavailableError after the last try."""
        tries = 0
        while True:
            try:
                return ask()
            except Transient as error:
                tries += 1
                self.again(tries, str(error))

    def again(self, tries: int, why: str) -> None:
        """Wait before another try, longer each time. Raises UnavailableError after the last."""
        if tries >= TRIES:
            raise UnavailableError(f"not reachable: {why}; what has been fetched is kept, run again later")
        self.reporter.info(f"{why}; try {tries + 1} of {TRIES}")
        self._wait(2.0 ** (tries - 1))

    @contextlib.contextmanager
    def locked(self, home: Path) -> Iterator[None]:
        """One process at a time per folder; the others wait and say so.

        A volume without locks holds nobody back: two at once then cost traffic, and each checks what is whole.
        """
        home.mkdir(parents=True, exist_ok=True)
        with (home / _LOCK).open("a") as file:
            told = False
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if not told:
                        self.reporter.info(f"{home}: another process downloads; waiting for it")
                        told = True
                    self._wait(_LOOK)
                except OSError:
                    break
            yield

    def _append(self, name: str, size: int, partial: Path, reading: Reading) -> None:
        """Add what one answer brings. Raises Transient if it is cut, and for an answer that is too long."""
        have = partial.stat().st_size
        with reading(have) as (begin, chunks), partial.open("r+b", buffering=0) as file:
            file.seek(begin)
            file.truncate()
            self._done -= have - begin
            for chunk in chunks:
                self.check()
                if file.tell() + len(chunk) > size:
                    self._done -= file.tell()
                    file.truncate(0)
                    raise Transient(f"more bytes than the {size} that are listed")
                file.write(chunk)
                self._tell(name, len(chunk))
            if file.tell() < size:
                raise Transient(f"cut after {file.tell()} of {size} bytes")

    def _tell(self, name: str, count: int) -> None:
        self._done += count
        self._fresh += count
        now = self.clock()
        if now - self._told >= _TOLD or self._done >= self._total:
            self._told = now
            rate = self._fresh / (now - self._start) if now > self._start else None
            self.reporter.transfer(name, self._done, self._total, rate)

    def _wait(self, seconds: float) -> None:
        while seconds > 0:
            self.check()
            self.sleep(min(seconds, _LOOK))
            seconds -= _LOOK


def require_room(home: Path, what: str, need: int) -> None:
    """Raises StorageError where `need` bytes of what is fetched, and a rest for the run, do not fit on the volume."""
    spare = min(SPARE, need)
    if need + spare > free(home):
        raise _no_room(home, what, need, spare)


@contextlib.contextmanager
def within_room(home: Path, what: str, left: Callable[[], int]) -> Iterator[None]:
    """A volume that others fill meanwhile: raises StorageError with the bytes that are `left` to fetch."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise _no_room(home, what, left()) from None
        raise


def _no_room(home: Path, what: str, need: int, spare: int = 0) -> StorageError:
    there = free(home)
    besides = f" and leaves {size_text(spare)} for the run" if spare and need <= there else ""
    return StorageError(
        f"{home}: {what} needs {size_text(need)} more{besides}, {size_text(there)} are free; grow the volume or make "
        "room, then run again: what has been fetched is kept"
    )
