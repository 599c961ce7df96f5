"""The first look at everything: how long a new leader takes until it knows of each training."""

import logging
import threading
import time
from collections.abc import Callable, Iterable

from ltx2_operator.runtime.observing import waits_as_before
from ltx2_operator.runtime.queue import Key
from ltx2_operator.runtime.reflector import Store

log = logging.getLogger(__name__)


def divide(trainings: Store, jobs: Store, pods: Store) -> tuple[list[Key], list[Key]]:
    """The keys to look at now, and those of trainings that wait for pods as they did when they were last looked at.

    What these wait for is asked for, a request each, and all of them at once would hold up the others' news.
    """
    now: list[Key] = []
    later: list[Key] = []
    for key in trainings.names():
        obj = trainings.one(key)
        waits = obj is not None and waits_as_before(obj, jobs.of(key), pods.of(key))
        (later if waits else now).append(key)
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
