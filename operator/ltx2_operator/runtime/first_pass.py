"""The first look at everything: how long a new leader takes until it knows of each training."""

import logging
import threading
import time
from collections.abc import Callable, Iterable

from ltx2_operator.runtime.queue import Key
from ltx2_operator.runtime.reflector import Store

log = logging.getLogger(__name__)


def in_order(trainings: Store) -> list[Key]:
    """The keys for a first pass: those that wait come last, since what they wait for is asked for, a request each."""

    def waits(key: Key) -> bool:
        return bool(((trainings.one(key) or {}).get("status") or {}).get("state") == "Waiting")

    return sorted(trainings.names(), key=waits)


class FirstPass:
    """Says once, in the log, that every training which was there at the beginning has been looked at."""

    def __init__(self, keys: Iterable[Key], clock: Callable[[], float] = time.monotonic) -> None:
        self._left, self._clock, self._began = set(keys), clock, clock()
        self._all = len(self._left)
        self._lock = threading.Lock()

    def looked(self, key: Key) -> None:
        """A training has been looked at, whatever came of it."""
        with self._lock:
            last = self._left == {key}
            self._left.discard(key)
        if last:
            log.info("has looked at all %d trainings, in %.1f s", self._all, self._clock() - self._began)
