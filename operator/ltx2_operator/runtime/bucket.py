"""A token bucket: how hard the API server may be asked."""

import threading
import time
from collections.abc import Callable


class TokenBucket:
    """`rate` requests a second on average, `burst` at once after a quiet time. Threads wait in turn."""

    def __init__(
        self,
        rate: float,
        burst: int,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        beside: "TokenBucket | None" = None,
    ) -> None:
        """beside: a larger one of which this is a share; what can do without leaves that one room."""
        self._rate, self._burst, self._clock, self._sleep = rate, float(burst), clock, sleep
        self._tokens, self._at = float(burst), clock()
        self._beside, self._lock = beside, threading.Lock()

    def roomy(self) -> bool:
        """Whether half of the burst is left: nobody waits, and whoever comes next need not."""
        with self._lock:
            self._fill()
            return self._tokens >= self._burst / 2

    def spare(self) -> bool:
        """Take a token if one is there now; says whether."""
        if self._beside is not None and not self._beside.roomy():
            return False
        with self._lock:
            self._fill()
            if self._tokens < 1.0:
                return False
            self._tokens -= 1.0
            return True

    def take(self) -> float:
        """Wait for a token; returns the seconds that were waited."""
        with self._lock:
            self._fill()
            self._tokens -= 1.0
            wait = max(0.0, -self._tokens / self._rate)  # a negative count is the queue of those who wait already
        if wait:
            self._sleep(wait)
        return wait

    def _fill(self) -> None:
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
