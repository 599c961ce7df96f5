"""How often is asked again what may stay as it is for hours: refused children, runs that wait for pods.

Nobody is told when a quota is raised or why no pod comes, so both are asked for. All of those runs together leave half
of the requests to the runs that have news, and ask only while these leave room.
"""

import random
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from ltx2_operator.attempts import backoff
from ltx2_operator.runtime.queue import Key

TRY_MOST: Final = 300.0  # seconds between two tries of a child that is refused; the first are 10, 20, 40 ... apart
YOUNG_AGAIN: Final = 10.0  # seconds between two looks at a run that waits for pods
OLD_AGAIN: Final = 60.0  # the same for a Job that has waited for long
OLD_AFTER: Final = 300.0
BUSY_AGAIN: Final = 5.0  # the same where others have taken the requests that one of them may make
REQUESTS: Final = 4  # of one look at a run that waits
SHARE: Final = 0.25  # of the requests that the operator may make: for the young ones, and for the old ones


@dataclass
class _Refusal:
    count: int = 0
    words: str = ""
    again: datetime | None = None


class Refusals:
    """What could not be done, by the training's uid: why, and when it is tried again."""

    def __init__(self) -> None:
        self._known: dict[str, _Refusal] = {}
        self._lock = threading.Lock()

    def words(self, uid: str) -> str:
        """Why the newest child could not be made; empty where nothing stands in the way."""
        with self._lock:
            known = self._known.get(uid)
            return known.words if known else ""

    def refused(self, uid: str, words: str, now: datetime) -> float:
        """Take down a refusal (words: for people, may be empty); returns seconds until the next try.

        A try that something else brought about meanwhile counts as none.
        """
        with self._lock:
            known = self._known.setdefault(uid, _Refusal())
            known.words = words or known.words
            if known.again is None or now >= known.again:
                known.count += 1
                known.again = now + timedelta(seconds=min(TRY_MOST, backoff(known.count)))
            return max(1.0, (known.again - now).total_seconds())

    def forget(self, uid: str) -> None:
        """All could be done, or the object is gone."""
        with self._lock:
            self._known.pop(uid, None)


def apart(requests_per_second: float) -> float:
    """Seconds between two looks at runs that wait, over all of them."""
    return REQUESTS / (requests_per_second * SHARE)


class Waiting:
    """Which runs wait for pods, and when each is looked at again: the more there are, the more rarely."""

    def __init__(self, requests_per_second: float) -> None:
        self._apart = apart(requests_per_second)
        self._old: dict[Key, bool] = {}
        self._lock = threading.Lock()

    def again(self, key: Key, waited: float) -> float:
        """Seconds until the next look at a run whose Job has waited for so many seconds."""
        old = waited >= OLD_AFTER
        with self._lock:
            self._old[key] = old
            alike = sum(one is old for one in self._old.values())
        least = OLD_AGAIN if old else YOUNG_AGAIN
        return max(least, alike * self._apart) * random.uniform(0.9, 1.1)  # not all in the same second

    def expect(self, keys: Iterable[Key]) -> None:
        """These have waited for long before this process looked at them."""
        with self._lock:
            self._old.update(dict.fromkeys(keys, True))

    def over(self, key: Key) -> None:
        """It waits no more."""
        with self._lock:
            self._old.pop(key, None)
