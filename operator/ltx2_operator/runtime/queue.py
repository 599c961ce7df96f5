"""The keyed queue: which trainings to look at next.

A key is looked at by one worker at a time; added again meanwhile, it comes back once that look is over. Many reasons to
look are one look. Errors come back later and later.
"""

import heapq
import threading
import time
from collections.abc import Callable
from typing import Final

Key = tuple[str, str]  # namespace, name

BACKOFF_FIRST: Final = 1.0  # seconds after the first error of a row; doubles with each
BACKOFF_MOST: Final = 300.0
VOID_MOST: Final = 1000  # timers beside those that hold, until they are cleared away


class KeyedQueue:
    """Keys that are due, and keys that will be."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, counted: Callable[[str], None] = lambda what: None
    ) -> None:
        """counted: told of each "add" and each "retry"."""
        self._clock, self._counted = clock, counted
        self._changed = threading.Condition()
        self._ready: dict[Key, None] = {}  # in order of arrival, each once
        self._working: set[Key] = set()
        self._again: set[Key] = set()  # added while being looked at
        self._due: dict[Key, float] = {}
        self._timers: list[tuple[float, Key]] = []  # entries that _due does not confirm are void
        self._errors: dict[Key, int] = {}
        self._closed = False

    def add(self, key: Key) -> None:
        """Look at it as soon as a worker is free."""
        with self._changed:
            self._add(key)

    def add_after(self, key: Key, seconds: float) -> None:
        """Look at it in so many seconds; of several such wishes the earliest holds."""
        if seconds <= 0:
            self.add(key)
            return
        with self._changed:
            due = self._clock() + seconds
            if due < self._due.get(key, float("inf")):
                self._due[key] = due
                heapq.heappush(self._timers, (due, key))
                if len(self._timers) > 2 * len(self._due) + VOID_MOST:
                    self._timers = [(moment, one) for one, moment in self._due.items()]
                    heapq.heapify(self._timers)
                self._changed.notify()

    def failed(self, key: Key) -> float:
        """An error: look again after 1, 2, 4 ... 300 seconds, which are returned."""
        with self._changed:
            count = self._errors.get(key, 0)
            self._errors[key] = count + 1
            self._counted("retry")
        wait = min(BACKOFF_MOST, BACKOFF_FIRST * 2.0 ** min(count, 16))
        self.add_after(key, wait)
        return wait

    def succeeded(self, key: Key) -> None:
        """The row of errors has ended."""
        with self._changed:
            self._errors.pop(key, None)

    def get(self, timeout: float | None = None) -> Key | None:
        """The next key, for this worker alone until done(key). None: closed, or nothing came within `timeout`."""
        end = None if timeout is None else self._clock() + timeout
        with self._changed:
            while True:
                now = self._clock()
                self._ripen(now)
                if self._closed:
                    return None
                if self._ready:
                    key = next(iter(self._ready))
                    del self._ready[key]
                    self._working.add(key)
                    return key
                waits = [moment - now for moment in (end, self._timers[0][0] if self._timers else None) if moment]
                if end is not None and end <= now:
                    return None
                self._changed.wait(min(waits) if waits else None)

    def done(self, key: Key) -> None:
        """The look at a key is over."""
        with self._changed:
            self._working.discard(key)
            if key in self._again:
                self._again.discard(key)
                self._add(key)

    def close(self) -> None:
        """Send all workers home."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def depth(self) -> int:
        """Keys that are due and wait for a worker."""
        with self._changed:
            return len(self._ready) + len(self._again)

    def _add(self, key: Key) -> None:
        self._counted("add")
        self._due.pop(key, None)
        if key in self._working:
            self._again.add(key)
        elif key not in self._ready:
            self._ready[key] = None
            self._changed.notify()

    def _ripen(self, now: float) -> None:
        while self._timers and self._timers[0][0] <= now:
            due, key = heapq.heappop(self._timers)
            if self._due.get(key) == due:
                self._add(key)
