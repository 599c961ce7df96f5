"""Processes that outlive the command that starts them: started with a log of their own, ended by their own id."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class StartFailed(RuntimeError):
    """A part of the cluster did not come up; the message ends with the end of its log."""


@dataclass(frozen=True)
class Process:
    """One process of this machine; the start time tells it from a later one with the same id."""

    name: str
    pid: int
    started: int

    @classmethod
    def of(cls, name: str, pid: int) -> "Process":
        """The process that has this id now."""
        return cls(name, pid, _started(pid) or 0)

    @property
    def alive(self) -> bool:
        """Whether it still runs (a dead child that nobody has waited for does not)."""
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)
        return _started(self.pid) == self.started

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send the signal, if it is still the same process."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def end(self, patience: float = 10) -> None:
        """SIGTERM, then SIGKILL after so many seconds; returns once it is gone."""
        self.kill(signal.SIGTERM)
        if not _soon(lambda: not self.alive, patience):
            self.kill()
            _soon(lambda: not self.alive, 30)


def start(name: str, command: list[str], log: Path, **options: Any) -> Process:
    """Start a command in a session of its own, its output appended to `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, **options
        )
    return Process.of(name, child.pid)


@contextlib.contextmanager
def absent(
    processes: Sequence[Process],
    launch: Callable[[str, list[str], Path], Process],
    logs: Path,
    ready: Callable[[], bool],
) -> Iterator[dict[Process, Process]]:
    """Kill processes for the time of the body, the last first; then start them as they were and wait for the last one.

    Afterwards the dictionary has the new process of each. Raises StartFailed.
    """
    commands = [Path(f"/proc/{one.pid}/cmdline").read_text().split("\0")[:-1] for one in processes]
    again: dict[Process, Process] = {}
    for one in reversed(processes):
        one.kill()
    try:
        yield again
    finally:
        for one, command in zip(processes, commands, strict=True):
            again[one] = launch(one.name, command, logs / f"{one.name}.log")
        last = processes[-1].name
        wait(last, ready, logs / f"{last}.log", again[processes[-1]])


def wait(what: str, ready: Callable[[], bool], log: Path, process: Process, patience: float = 60) -> None:
    """Wait until `ready`.

    Raises:
        StartFailed: the process has ended, or is not ready after so many seconds.
    """
    ended = False

    def settled() -> bool:
        nonlocal ended
        ended = not process.alive
        return ended or ready()

    if not _soon(settled, patience) or ended:
        why = "has ended" if ended else f"is not ready after {patience:.0f} s"
        raise StartFailed(f"{what} {why}; {log} ends with:\n{log.read_text(errors='replace')[-3000:]}")


def children(pid: int) -> list[int]:
    """The ids of a process's children."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _soon(true: Callable[[], bool], patience: float) -> bool:
    end = time.monotonic() + patience
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def _started(pid: int) -> int | None:
    """The start time in clock ticks since boot (field 22 of proc(5) stat); None for a process that has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])
