"""Waiting in tests for what another process does."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


def until(true: Callable[[], Any], what: str, patience: float = 30) -> Any:
    """Ask again and again until the answer is something; returns it."""
    end = time.monotonic() + patience
    while not (found := true()):
        assert time.monotonic() < end, f"{what}: not within {patience} s"
        time.sleep(0.1)
    return found
