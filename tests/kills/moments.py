"""Where in a run it is broken: planned from a seed, so that the same seed breaks the same runs in the same way."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

PHASES: Final = ("caching", "training", "saving", "validating")
KILL: Final = "KILL"
TERM: Final = "TERM"
ALL: Final = "all"

Timetable = dict[str, list[float]]
"""Phase -> how long the unbroken run stayed in it (seconds), entry by entry."""


@dataclass(frozen=True)
class Moment:
    """A share of the time that a run spends in a phase when it enters it the n-th time (from 0)."""

    phase: str
    entry: int
    share: float


@dataclass(frozen=True)
class Case:
    """One run to break: the signal, how many processes train, which of them get it, and in which phase."""

    name: str
    signal: str
    processes: int
    target: str  # "all", or a rank
    phase: str
    seed: int

    @property
    def stage(self) -> str:
        """The stage that is broken."""
        return "cache" if self.phase == "caching" else "train"

    def source(self) -> random.Random:
        """The case's own random numbers."""
        return random.Random(f"{self.seed}/{self.name}")

    def moments(self, timetable: Timetable) -> Iterator[Moment]:
        """Where to break it; the next one is for a run that had ended, or had gone on to another phase, too early."""
        source = self.source()
        while True:
            yield Moment(self.phase, source.randrange(len(timetable[self.phase])), source.random())

    @property
    def again(self) -> float | None:
        """For one run in four: the share of loading after which the resumed attempt is killed, too."""
        source = random.Random(f"{self.seed}/{self.name}/again")
        return source.random() if source.random() < 0.25 else None


def plan(signal: str, count: int, seed: int) -> list[Case]:
    """`count` cases: the phases in turn, every third run with two processes.

    A kill hits rank 0, rank 1 or both; the launcher passes SIGTERM to all, a pod of several may get it alone.
    """
    cases = []
    for number in range(count):
        name, processes = f"{signal}-{number:03d}", 2 if number % 3 == 0 else 1
        phase = PHASES[number % len(PHASES)]
        target = random.Random(f"{seed}/{name}/target").choice((ALL, "0", "1"))
        if processes == 1 or phase == "caching":
            target = ALL  # the store has one writer
        cases.append(Case(name, signal, processes, target, phase, seed))
    return cases
