"""Waiting in tests for what another process does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


def until(true: Callable[[], Any], what: str, patience: float = 30) -> Any:
    """Ask again and again until the answer is something; returns it."""
    end = time.monotonic() + patience
    while not (found := true()):
        assert time.monotonic() < end, f"{what}: not within {patience} s"
        time.sleep(0.1)
    return found


@contextmanager
def every(seconds: float, act: Callable[[], Any]) -> Iterator[None]:
    """Call it again and again, with a pause before each call, in a thread for the time of the body."""
    over = threading.Event()

    def again() -> None:
        while not over.wait(seconds):
            act()

    thread = threading.Thread(target=again, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
