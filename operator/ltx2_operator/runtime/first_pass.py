"""The first look at everything: how long a new leader takes until it knows of each training."""

import logging
import threading
import time
from collections.abc import Callable, Iterable

from ltx2_operator.runtime.queue import Key
from ltx2_operator.runtime.reflector import Body, Store

log = logging.getLogger(__name__)


def divide(trainings: Store, waits: Callable[[Body], bool]) -> tuple[list[Key], list[Key]]:
    """The keys to look at now, and those of trainings that wait for pods as they did (Watcher.waits).

    What these wait for is asked for, a request each, and all of them at once would hold up the others' news.
    """
    now: list[Key] = []
    later: list[Key] = []
    for key in trainings.names():
        obj = trainings.one(key)
        (later if obj is not None and waits(obj) else now).append(key)
    return now, later


class FirstPass:
    """Says once, in the log, that every training which was to be looked at in the beginning has been."""

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
            log.info(
                "has looked at all %d trainings that may have news, in %.1f s", self._all, self._clock() - self._began
            )
