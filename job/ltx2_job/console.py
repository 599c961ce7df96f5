"""What a person sees while a stage runs: bars on a terminal, plain lines in a pod's log or a file."""

import math
import sys
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, Protocol, TextIO

if TYPE_CHECKING:
    from rich.progress import TaskID

BESIDE_BAR: Final = 100  # columns of a terminal that the numbers of a step take
LINE_SECONDS: Final = 10.0  # a plain line for steps or items at most this often


class Console(Protocol):
    """Draws a stage's course. `line` is for events, the others are called for every step or item."""

    def line(self, text: str) -> None:
        """One event, never dropped."""

    def step(self, step: int, max_steps: int, text: str) -> None:
        """Step `step` of `max_steps` is done; `text` holds its numbers."""

    def items(self, kind: str, done: int, total: int) -> None:
        """`done` of `total` items of a kind are cached."""

    def transfer(self, name: str, done: int, total: int, text: str) -> None:
        """`done` of `total` bytes of a download are here; `text` says so for people."""

    def close(self) -> None:
        """Leave the terminal as it was."""


class PlainConsole:
    """Lines without colours; steps and items at most every ten seconds, but the first and the last always."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic):
        self._stream = stream
        self._clock = clock
        self._last: dict[str, float] = {}

    def line(self, text: str) -> None:
        """Print the event."""
        print(text, file=self._stream, flush=True)

    def step(self, step: int, max_steps: int, text: str) -> None:
        """Print the step if it is time for a line."""
        if self._due("step", step >= max_steps):
            self.line(f"step {step}/{max_steps}  {text}")

    def items(self, kind: str, done: int, total: int) -> None:
        """Print the count if it is time for a line."""
        if self._due(kind, done >= total):
            self.line(f"{kind} {done}/{total}")

    def transfer(self, name: str, done: int, total: int, text: str) -> None:
        """Print how far it is if it is time for a line."""
        if self._due("transfer", done >= total):
            self.line(f"{name}  {text}")

    def close(self) -> None:
        """Nothing to undo."""

    def _due(self, what: str, last: bool) -> bool:
        now = self._clock()
        if not last and now - self._last.get(what, -math.inf) < LINE_SECONDS:
            return False
        self._last[what] = now
        return True


class RichConsole:
    """One progress bar per stage of the work, events above them."""

    def __init__(self, stream: TextIO):
        from rich.console import Console as Terminal
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TextColumn, TimeRemainingColumn
        from rich.progress import ProgressColumn as Column
        from rich.table import Column as Fixed
        from rich.text import Text

        class Pace(Column):
            """Items per second; the training's own text says seconds per step."""

            def render(self, task: Task) -> Text:
                return Text("" if task.speed is None or task.fields["text"] else f"{task.speed:.1f}/s")

        class Numbers(Column):
            """The training's own text: the only column that is cut where the terminal is narrow."""

            def render(self, task: Task) -> Text:
                return Text(task.fields["text"], no_wrap=True, overflow="ellipsis")

        def whole() -> Fixed:
            return Fixed(no_wrap=True)

        terminal = Terminal(file=stream)
        self._progress = Progress(
            TextColumn("{task.description}", table_column=whole()),
            MofNCompleteColumn(table_column=whole()),
            BarColumn(min(40, max(4, terminal.width - BESIDE_BAR)), table_column=whole()),
            TimeRemainingColumn(compact=True, table_column=whole()),
            Pace(table_column=whole()),
            Numbers(),
            console=terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._progress.start()

    def line(self, text: str) -> None:
        """Print the event above the bars."""
        self._progress.console.print(text, markup=False, highlight=False)

    def step(self, step: int, max_steps: int, text: str) -> None:
        """Move the bar of the training."""
        self._bar("train", step, max_steps, text)

    def items(self, kind: str, done: int, total: int) -> None:
        """Move the bar of this kind."""
        self._bar(kind, done, total, "")

    def transfer(self, name: str, done: int, total: int, text: str) -> None:
        """Move the bar of the download, which counts in MiB."""
        self._bar("download", done >> 20, max(1, total >> 20), text)

    def close(self) -> None:
        """Draw the bars a last time and give the cursor back."""
        self._progress.stop()

    def _bar(self, name: str, done: int, total: int, text: str) -> None:
        if name not in self._tasks:
            # `completed` at birth: a resumed training's pace is not measured from step 0.
            self._tasks[name] = self._progress.add_task(name, total=total, completed=max(0, done - 1), text=text)
        self._progress.update(self._tasks[name], completed=done, total=total, text=text)


def open_console(stream: TextIO | None = None) -> Console:
    """Bars if the stream (standard output) is a terminal, else plain lines."""
    stream = stream or sys.stdout
    return RichConsole(stream) if stream.isatty() else PlainConsole(stream)


def describe(values: Mapping[str, float], eta_seconds: float | None, memory: tuple[str, int] | None = None) -> str:
    """The numbers of a step for people: losses, pace, remaining time, and memory as (what, bytes)."""
    parts = [
        f"{key.replace('loss_', '')} {values[key]:.4f}" for key in ("loss", "loss_video", "loss_audio") if key in values
    ]
    if "seconds_per_step" in values:
        parts.append(f"{values['seconds_per_step']:.2f} s/step")
    if eta_seconds is not None:
        parts.append(f"{duration(eta_seconds)} left")
    if memory is not None:
        parts.append(f"{memory[0]} {memory[1] / 2**30:.1f} GiB")
    return "  ".join(parts)


def describe_transfer(done: int, total: int, rate: float | None) -> str:
    """The numbers of a download for people: bytes, bytes a second, remaining time."""
    parts = [f"{size_text(done)} of {size_text(total)}"]
    if rate:
        parts += [f"{rate / 2**30:.2f} GiB/s", f"{duration((total - done) / rate)} left"]
    return "  ".join(parts)


def size_text(count: int) -> str:
    """Bytes for people: 512 B, 1.5 MiB, 40.3 GiB."""
    value, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            break
        value /= 1024
    return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"


def duration(seconds: float) -> str:
    """Seconds for people: 42s, 7m, 3h 20m."""
    minutes = int(seconds + 0.5) // 60
    if minutes < 1:
        return f"{int(seconds + 0.5)}s"
    return f"{minutes}m" if minutes < 60 else f"{minutes // 60}h {minutes % 60}m"
