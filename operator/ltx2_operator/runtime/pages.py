"""Reads the progress pages of running trainings, beside everything else: a page that hangs holds up nobody."""

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

from ltx2_operator.progress import READ_EVERY, PageError, fetch, parse
from ltx2_operator.runtime.queue import Key

READERS: Final = 8
FIRST: Final = 2.0  # seconds until the page of a new run is read first, at the most
FIRST_A_SECOND: Final = 100  # of a great number of new runs
KEEP: Final = 3 * READ_EVERY  # seconds for which a page that was read counts as the newest
LOOK_EVERY: Final = 0.5  # seconds between two looks at which pages are due
RARELY: Final = 3  # times that the wait doubles while a page cannot be read: 15, 30, 60, 120 s

log = logging.getLogger(__name__)


@dataclass
class _Reading:
    host: str
    due: float
    busy: bool = False  # a reader has it, or will have it
    failures: int = 0  # in a row
    tried: bool = False
    text: bytes = b""
    page: Mapping[str, Any] | None = None
    read: float = field(default=float("-inf"))


class Pages:
    """The newest page of each training that somebody wants to see.

    `came` is called with a key when its page says something else than before, when the first try to read it failed, and
    when it could not be read for so long that the last one counts no more.
    """

    def __init__(
        self,
        port: int,
        came: Callable[[Key], None],
        clock: Callable[[], float] = time.monotonic,
        get: Callable[[str, int], bytes] = fetch,
    ) -> None:
        self._port, self._came, self._clock, self._get = port, came, clock, get
        self._readings: dict[Key, _Reading] = {}
        self._lock = threading.Lock()
        self._ended = threading.Event()

    def want(self, key: Key, host: str | None) -> Mapping[str, Any] | None:
        """Read this training's page from now on, from this address (None: no longer); returns the newest page."""
        with self._lock:
            if host is None:
                self._readings.pop(key, None)
                return None
            known = self._readings.get(key)
            if known is None or known.host != host:
                self._readings[key] = _Reading(host, self._clock() + random.uniform(0, self._spread()))
                return None
            return known.page if self._clock() - known.read < KEEP else None

    def awaited(self, key: Key) -> bool:
        """Whether nobody has tried yet to read a wanted page: that there is none says nothing."""
        with self._lock:
            known = self._readings.get(key)
            return known is not None and not known.tried

    def _spread(self) -> float:
        """Seconds within which a page is read first: soon, but not the pages of thousands of runs at once."""
        return min(READ_EVERY, max(FIRST, len(self._readings) / FIRST_A_SECOND))

    def start(self) -> None:
        """Begin, in threads of its own."""
        threading.Thread(target=self._forever, name="progress pages", daemon=True).start()

    def stop(self) -> None:
        """Read no more pages."""
        self._ended.set()

    def _forever(self) -> None:
        with ThreadPoolExecutor(READERS, thread_name_prefix="page") as pool:
            while not self._ended.wait(LOOK_EVERY):
                self.hand_out(pool.submit)

    def hand_out(self, submit: Callable[..., Any]) -> None:
        """Give what is due to the readers. An error costs one round and is logged: no other thread would see it."""
        try:
            for key, reading in self.due():
                submit(self.read, key, reading)
        except Exception:
            log.exception("the progress pages that are due could not be handed out")

    def due(self) -> list[tuple[Key, _Reading]]:
        """What is to be read now, each once until it has been read: pages that hang must not pile up."""
        self._forget_old()
        now = self._clock()
        with self._lock:
            found = [one for one in self._readings.items() if one[1].due <= now and not one[1].busy]
            for _, reading in found:
                reading.busy = True
        return found

    def _forget_old(self) -> None:
        now, lost = self._clock(), []
        with self._lock:
            for key, reading in self._readings.items():
                if reading.page is not None and now - reading.read >= KEEP:
                    reading.text, reading.page = b"", None
                    lost.append(key)
        for key in lost:
            self._came(key)

    def read(self, key: Key, reading: _Reading) -> None:
        """Read one page now. One that cannot be read says nothing about the run; it is tried less and less often."""
        try:
            news = self._read(reading)
        except PageError as error:
            log.debug("%s/%s: %s", *key, error)
            news = self._failed(reading)
        except Exception:
            log.exception("%s/%s: the progress page could not be read", *key)
            news = self._failed(reading)
        with self._lock:
            wait = READ_EVERY * 2 ** min(max(reading.failures - 1, 0), RARELY)  # one that is missed changes nothing
            reading.due, reading.busy = self._clock() + wait * random.uniform(0.9, 1.1), False
        if news:
            self._came(key)

    def _read(self, reading: _Reading) -> bool:
        """Take the page over; says whether it differs from the last one. Raises PageError."""
        text = self._get(reading.host, self._port)
        with self._lock:
            if text == reading.text:
                reading.failures, reading.read = 0, self._clock()
                return False
        page = parse(text)
        with self._lock:
            reading.tried, reading.failures = True, 0
            reading.text, reading.page, reading.read = text, page, self._clock()
        return True

    def _failed(self, reading: _Reading) -> bool:
        """Says whether it was the first try: somebody waits for that."""
        with self._lock:
            first, reading.tried = not reading.tried, True
            reading.failures += 1
        return first
