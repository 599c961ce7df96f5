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

log = logging.getLogger(__name__)


@dataclass
class _Reading:
    host: str
    due: float
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

    def _forever(self) -> None:
        with ThreadPoolExecutor(READERS, thread_name_prefix="page") as pool:
            while True:
                for key, reading in self.due():
                    pool.submit(self.read, key, reading)
                time.sleep(0.5)

    def due(self) -> list[tuple[Key, _Reading]]:
        """What is to be read now; each is due again after 15 seconds, more or less."""
        now = self._clock()
        with self._lock:
            found = [(key, reading) for key, reading in self._readings.items() if reading.due <= now]
            lost = [key for key, reading in found if reading.page is not None and now - reading.read >= KEEP]
            for _, reading in found:
                reading.due = now + READ_EVERY * random.uniform(0.9, 1.1)
                if now - reading.read >= KEEP:
                    reading.text, reading.page = b"", None
        for key in lost:
            self._came(key)
        return found

    def read(self, key: Key, reading: _Reading) -> None:
        """Read one page now. One that cannot be read says nothing about the run."""
        try:
            text = self._get(reading.host, self._port)
            if text == reading.text:
                reading.read = self._clock()
                return
            page = parse(text)
        except PageError as error:
            log.debug("%s/%s: %s", *key, error)
            self._first_failed(key, reading)
            return
        except Exception:
            log.exception("%s/%s: the progress page could not be read", *key)
            self._first_failed(key, reading)
            return
        with self._lock:
            reading.tried, reading.text, reading.page, reading.read = True, text, page, self._clock()
        self._came(key)

    def _first_failed(self, key: Key, reading: _Reading) -> None:
        with self._lock:
            first, reading.tried = not reading.tried, True
        if first:
            self._came(key)
