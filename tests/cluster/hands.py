"""Threads that act on a cluster while its trainings run."""

import threading
from collections.abc import Callable
from typing import Any

AT_ONCE = 12  # trainings: more of them only wait for each other's processor, and all that is timed with them


class Hands:
    """What goes wrong in a thread is raised where its training is asked about. room: for those under way at once."""

    def __init__(self) -> None:
        self.room = threading.Semaphore(AT_ONCE)
        self._threads: dict[str, threading.Thread] = {}
        self._wrong: dict[str, BaseException] = {}

    def act(self, name: str, act: Callable[..., Any], *given: Any) -> None:
        """Begin."""

        def run() -> None:
            try:
                act(*given)
            except BaseException as error:
                self._wrong[name] = error

        self._threads[name] = threading.Thread(target=run, daemon=True)
        self._threads[name].start()

    def join(self, name: str) -> None:
        """Wait for the end of what was begun under this name, if anything was; raises what it raised."""
        self.settled(name)
        if name in self._wrong:
            raise self._wrong[name]

    def settled(self, name: str) -> None:
        """Wait for the end of it, however it ended."""
        if name in self._threads:
            self._threads[name].join()
