"""Where a stage says how far it is: one object that feeds screen, log, metrics, progress page and the last word."""

import contextlib
import json
import logging
import math
import threading
import time
from collections.abc import Callable, Container, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self

from ltx2_job import exitcodes, history
from ltx2_job.console import Console, describe, describe_transfer
from ltx2_job.errors import JobError
from ltx2_job.fence import Fence
from ltx2_job.metrics import Metrics, Server, peak_memory
from ltx2_job.progress import Progress, encode, write_last_word
from ltx2_job.workspace import RunFolder, naming, write_atomic

TRANSFER_SECONDS: Final = 60.0  # a download's line in the log at most this often
FENCE_SECONDS: Final = 1.0  # the fence is read at most this often for the many small appends to logs


class Reporter:
    """Reports nothing: the reporter of every rank above 0, and of commands outside a run."""

    def __init__(self) -> None:
        self.result: dict[str, Any] = {}  # goes into the termination message

    def state(self, name: str) -> None:
        """What the stage does now: downloading, loading, caching, training, validating, saving or done."""

    def items(self, done: int, total: int, result: str | None = None, kind: str = "items") -> None:
        """`done` of `total` items of a kind are cached; the newest was encoded, reused or skipped."""

    def transfer(self, name: str, done: int, total: int, rate: float | None) -> None:
        """`done` of `total` bytes of a download are here, `rate` bytes a second come; `name`: the file at hand."""

    def step(self, step: int, max_steps: int, values: Mapping[str, float]) -> None:
        """An optimizer step is done.

        Keys: loss, loss_video, loss_audio, learning_rate, grad_norm, seconds_per_step, data_wait_seconds (seconds).
        """

    def held_out(self, step: int, loss: float, parts: Mapping[str, float]) -> None:
        """The loss on the held-out clips, and its parts by name (video, audio)."""

    def checkpoint(self, step: int, path: Path, seconds: float) -> None:
        """A checkpoint is complete; writing it took `seconds`."""

    def validation(self, step: int, files: list[Path]) -> None:
        """Validation videos of this step are written."""

    def resumed(self, step: int, measured: Container[int], every: int) -> None:
        """Training goes on from this step, with these steps measured: what else metrics.jsonl has was thrown away.

        every: steps from one checkpoint to the next; 0: only at the end.
        """

    def finished(self, result: Mapping[str, Any]) -> None:
        """There is nothing to do: this very run lies finished in its folder, with this result.json."""

    def warn(self, message: str) -> None:
        """Something a person should know; shown on the progress page too."""

    def info(self, message: str) -> None:
        """A line for screen and log."""

    def stopping(self) -> None:
        """SIGTERM or SIGINT has come; safe to call from a signal handler."""

    def leaving(self, message: str) -> None:
        """Told to stop, and everything is on disk: a kill from here on changes nothing."""

    def traceback(self, text: str) -> None:
        """The long story of an unexpected end, for the log."""

    def close(self, code: int, message: str) -> None:
        """The stage has ended with this exit code: write the last word and let go of everything."""


class ScreenReporter(Reporter):
    """The reporter of a command outside a run: what it has to say goes to the screen alone."""

    def __init__(self, console: Console):
        super().__init__()
        self._console = console

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._console.close()

    def transfer(self, name: str, done: int, total: int, rate: float | None) -> None:
        """Move the bar."""
        self._console.transfer(name, done, total, describe_transfer(done, total, rate))

    def info(self, message: str) -> None:
        """Show it."""
        self._console.line(message)


class LiveReporter(Reporter):
    """The reporter of rank 0. Every write to the run folder asks the fence first."""

    def __init__(
        self,
        run: RunFolder,
        fence: Fence,
        progress: Progress,
        console: Console,
        *,
        port: int | None = None,
        termination_log: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        """Open the log and serve `port` if one is given.

        A port that cannot be had costs the operator's view, not the training: it is a warning.
        """
        super().__init__()
        self.progress = progress
        self.result = progress.result
        self._run, self._fence, self._console = run, fence, console
        self._termination_log, self._clock = termination_log, clock
        self._fence_read = clock()
        self._transfer_logged = -math.inf
        self._metrics = Metrics(progress.run, progress.stage)
        self._stop_seen = threading.Event()
        self._closed = False
        run.root.mkdir(parents=True, exist_ok=True)
        self._log = run.log.open("a", encoding="utf-8", errors="replace", buffering=1)
        self._numbers = run.metrics.open("a", encoding="utf-8", buffering=1)
        self._handler = _LogHandler(self)
        logging.getLogger("ltx2_job").addHandler(self._handler)
        self.server: Server | None = None
        if port is not None:
            try:
                self.server = Server(port, self._metrics.render, lambda: encode(self.progress.page()))
            except OSError as error:
                self.warn(f"port {port}: {error.strerror or error}; no /metrics and /progress, the training goes on")
        # A handler must not print (the terminal's lock may be held by the very code it interrupted): a thread does.
        self._announcer = threading.Thread(target=self._announce, daemon=True)
        self._announcer.start()

    def state(self, name: str) -> None:
        """Show the state on the progress page and log it."""
        if name != self.progress.state:
            if self.progress.state == "downloading":  # its count is not that of items
                self.progress.done = self.progress.total = 0
            self.progress.state = name
            self._write_log("INFO", name)

    def items(self, done: int, total: int, result: str | None = None, kind: str = "items") -> None:
        """Count the item and move its bar."""
        self.progress.done, self.progress.total = done, total
        if result is not None:
            self._metrics.item(kind, result)
            self.progress.skipped += result == "skipped"
        self._console.items(kind, done, total)

    def transfer(self, name: str, done: int, total: int, rate: float | None) -> None:
        """Count MiB on the progress page, move the bar, and log how far it is once a minute."""
        self.progress.done, self.progress.total = done >> 20, total >> 20
        self.progress.transfer_eta = (total - done) / rate if rate else None
        text = describe_transfer(done, total, rate)
        now = self._clock()
        if now - self._transfer_logged >= TRANSFER_SECONDS:
            self._transfer_logged = now
            self._write_log("INFO", f"{name}: {text}")
        self._console.transfer(name, done, total, text)

    def step(self, step: int, max_steps: int, values: Mapping[str, float]) -> None:
        """Append the step to metrics.jsonl, show it, and warn once when the loss stops being a number."""
        progress = self.progress
        progress.step, progress.max_steps = step, max_steps
        if "loss" in values:
            if not math.isfinite(values["loss"]) and (progress.loss is None or math.isfinite(progress.loss)):
                self.warn(f"step {step}: the loss is {values['loss']}; a lower learning_rate or clipping may help")
            progress.loss = values["loss"]
        if "seconds_per_step" in values:
            progress.saw_step(values["seconds_per_step"])
        self._metrics.step(step, max_steps, values)
        self._append({"step": step, **values})
        self._console.step(step, max_steps, describe(values, progress.eta_seconds, peak_memory()))

    def held_out(self, step: int, loss: float, parts: Mapping[str, float]) -> None:
        """Append the held-out loss to metrics.jsonl and show it."""
        self.progress.held_out_loss = loss
        self._metrics.held_out(loss, parts)
        named = {f"held_out_{name.removeprefix('loss_')}": value for name, value in parts.items()}
        self._append({"step": step, "held_out_loss": loss, **named})
        self.info(f"step {step}: held-out loss {loss:.4f}")

    def checkpoint(self, step: int, path: Path, seconds: float) -> None:
        """Show the checkpoint, and leave the page on the volume: for a killed process it is the last word."""
        page_time = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        self.progress.step = max(self.progress.step, step)  # its numbers may not have been read yet
        self.progress.checkpoint = {"step": step, "path": str(path), "time": page_time}
        self._metrics.checkpoint(step, seconds)
        write_last_word(self.progress.page(), None, self._run, self.progress.attempt)
        self.info(f"step {step}: checkpoint {path} ({seconds:.1f} s)")

    def validation(self, step: int, files: list[Path]) -> None:
        """A line with each file."""
        for file in files:
            self.info(f"step {step}: validation {file}")

    def resumed(self, step: int, measured: Container[int], every: int) -> None:
        """Cut metrics.jsonl back to this step and say so, in the history too."""
        self._metrics.resumed(step, every)
        self._numbers.close()
        lines = self._run.metrics.read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if _belongs(line, step, measured)]
        self._fence.check()
        write_atomic(self._run.metrics, "".join(line + "\n" for line in kept))
        self._numbers = self._run.metrics.open("a", encoding="utf-8", buffering=1)
        self.progress.step = step
        if step:
            one = self.progress
            history.append(self._run, [history.entry(history.RESUMED, one.uid, one.attempt, one.stage, step=step)])
            self.info(f"resuming from step {step}")

    def finished(self, result: Mapping[str, Any]) -> None:
        """Show the last step, and give the result to the last word."""
        steps = result.get("steps")
        if isinstance(steps, int):
            self.progress.step = self.progress.max_steps = steps
        self.result.update(result)
        self.info(f"finished before, after {steps} steps: {result.get('lora')}")
        self.state("done")

    def warn(self, message: str) -> None:
        """Show, log, and keep for the progress page; the same warning only once."""
        if message not in self.progress.warnings:
            self.progress.warnings.append(message)
            self._write_log("WARNING", message)
            self._console.line(f"warning: {message}")

    def info(self, message: str) -> None:
        """Show and log."""
        self._write_log("INFO", message)
        self._console.line(message)

    def stopping(self) -> None:
        """Wake the thread that answers the signal."""
        self._stop_seen.set()

    def leaving(self, message: str) -> None:
        """Write the last word already now: whoever kills this process while it takes itself apart finds it."""
        self._fence.check()
        page = self.progress.last_word(exitcodes.STOPPED, message)
        with contextlib.suppress(OSError):  # a volume that is full by now does not make a failure of a stop
            write_last_word(page, self._termination_log, self._run, self.progress.attempt)

    def traceback(self, text: str) -> None:
        """Into the log, whole."""
        self._write_log("ERROR", text.rstrip())

    def close(self, code: int, message: str) -> None:
        """Write the last word, stop serving, give the terminal back. Further calls do nothing.

        An attempt that was superseded leaves the run folder alone and writes only the termination message.
        """
        if self._closed:
            return
        self._closed = True
        self._stop_seen.set()
        self._announcer.join()
        self._console.close()
        try:
            self._write_log("INFO" if code == 0 else "ERROR", f"exit code {code}: {message}")
            self._fence.check()
            run: RunFolder | None = self._run
        except (JobError, OSError):  # this attempt must not, or cannot, write to the run folder any more
            run = None
        try:
            write_last_word(self.progress.last_word(code, message), self._termination_log, run, self.progress.attempt)
        finally:
            logging.getLogger("ltx2_job").removeHandler(self._handler)
            if self.server is not None:
                self.server.close()
            for file in (self._log, self._numbers):
                with contextlib.suppress(OSError):  # what a full volume did not take is not taken now either
                    file.close()

    def _announce(self) -> None:
        self._stop_seen.wait()
        if not self._closed:
            with contextlib.suppress(JobError, OSError):  # the main thread meets the same and ends by it
                self.info(f"{_doing(self.progress)}; again to stop at once")

    def _append(self, numbers: Mapping[str, Any]) -> None:
        self._guard()
        line = {"time": round(time.time(), 3), **{key: _number(value) for key, value in numbers.items()}}
        with naming(self._run.metrics):
            self._numbers.write(json.dumps(line, allow_nan=False) + "\n")

    def _write_log(self, level: str, message: str) -> None:
        self._guard()
        with naming(self._run.log):
            self._log.write(f"{datetime.now(UTC).isoformat(timespec='milliseconds')} {level} {message}\n")

    def _guard(self) -> None:
        now = self._clock()
        if now - self._fence_read >= FENCE_SECONDS:
            self._fence.check()
            self._fence_read = now


class _LogHandler(logging.Handler):
    """Takes what the rooms log under `ltx2_job` into log.txt, so that modules need no reporter to leave a trace."""

    def __init__(self, reporter: LiveReporter):
        super().__init__(logging.INFO)
        self._reporter = reporter

    def emit(self, record: logging.LogRecord) -> None:
        """One record, one line of the log."""
        self._reporter._write_log(record.levelname, record.getMessage())


def _number(value: float) -> float | None:
    """Eight digits are more than a loss holds; JSON has no NaN, so null stands for it."""
    if isinstance(value, int):
        return value
    return float(f"{value:.8g}") if math.isfinite(value) else None


def _belongs(line: str, step: int, measured: Container[int]) -> bool:
    """Whether a line of metrics.jsonl is part of a course that goes on from `step`; a torn last line is not.

    A measurement that the course does not know is made again.
    """
    try:
        page = json.loads(line)
        return int(page["step"]) <= step and ("held_out_loss" not in page or int(page["step"]) in measured)
    except (ValueError, KeyError, TypeError):
        return False


def _doing(progress: Progress) -> str:
    """What happens between the first signal and the end."""
    if progress.state == "downloading":
        return "stopping the download, keeping what has been fetched"
    if progress.stage == "cache":
        return "finishing the item at hand, keeping what is cached"
    if progress.state == "loading":
        return "stopping before the first step"
    if progress.state == "validating":
        return "leaving validation, writing checkpoint"
    # The trainer reads a step's numbers while the next one is computed, and that next one is still shown to nobody.
    return f"finishing step {progress.step + 2}, writing checkpoint"
