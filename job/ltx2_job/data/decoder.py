"""The owner of one media worker (data/worker.py): asks it about files, survives its death. No av, no torch in here.

A worker that crashes, is killed or makes no progress costs the clip it was working on (`Unusable`), and the next
request starts a new one. One decoder serves one thread at a time.
"""

import contextlib
import fcntl
import json
import os
import select
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Final

import ltx2_job
from ltx2_job.errors import JobError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PATIENCE: Final = 120.0
"""Seconds without a byte from the worker after which it counts as hung. A frame takes milliseconds."""

_PIPE_BYTES: Final = 1 << 20  # a pipe's default of 64 KiB would wake both sides forty times a frame


class Unusable(Exception):
    """This file cannot be used; `reason` says why. `lasting`: the same bytes will fail again, so trying is no use."""

    def __init__(self, reason: str, *, lasting: bool = True):
        super().__init__(reason)
        self.reason = reason
        self.lasting = lasting


@dataclass(frozen=True)
class Probe:
    """What a file holds (data/worker.py `probe`)."""

    width: int  # of the displayed frame, in stored pixels
    height: int
    aspect: Fraction  # width of a displayed pixel / its height
    frames: int
    rate: Fraction  # own frames per second
    regular: bool  # all frames last equally long
    seconds: Fraction  # of the picture
    origin: Fraction  # when the first frame is displayed, on the file's clock
    sound: bool  # there is an audio track

    @staticmethod
    def from_json(raw: dict[str, Any]) -> "Probe":
        """From the worker's answer, or from what was remembered of it."""
        return Probe(
            width=raw["width"],
            height=raw["height"],
            aspect=Fraction(raw["aspect"]),
            frames=raw["frames"],
            rate=Fraction(raw["rate"]),
            regular=raw["regular"],
            seconds=Fraction(raw["seconds"]),
            origin=Fraction(raw["origin"]),
            sound=raw["sound"],
        )


class Decoder:
    """Requests to one worker process, started when it is first needed. A context manager."""

    def __init__(self, patience: float = PATIENCE, command: Sequence[str] | None = None):
        """`command` starts the worker; tests give one that crashes."""
        self.patience = patience
        self.command = tuple(command or (sys.executable, "-m", "ltx2_job.data.worker"))
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None

    def __enter__(self) -> "Decoder":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def probe(self, path: Path) -> dict[str, Any]:
        """The worker's answer about a file, as JSON values (`Probe.from_json`). Raises Unusable."""
        answer = {}
        for kind, body in self._ask({"op": "probe", "path": str(path)}):
            if kind == b"J":
                answer = json.loads(body)
        return answer

    def frames(
        self, path: Path, count: int, rate: Fraction, as_they_are: bool, height: int, width: int
    ) -> "Generator[NDArray[np.uint8]]":
        """The first `count` frames at `rate`, one by one, each uint8 [height, width, 3] RGB as displayed.

        `as_they_are`: take the file's frames one after another, without looking at their times. Raises Unusable, also
        when a frame has another size.
        """
        import numpy as np

        request = {
            "op": "frames", "path": str(path), "count": count, "rate": str(rate), "as_they_are": as_they_are,
        }  # fmt: skip
        for kind, body in self._ask(request):
            if kind == b"D":
                if len(body) != height * width * 3:
                    raise Unusable("its frames change their size in the middle")
                yield np.frombuffer(body, np.uint8).reshape(height, width, 3)

    def sound(self, path: Path, seconds: Fraction, origin: Fraction) -> "tuple[NDArray[np.float32] | None, bool]":
        """(wave [2, S] at 16 kHz or None without a track, whether it reaches -60 dBFS). Raises Unusable."""
        import numpy as np

        wave, sounds = None, False
        request = {"op": "sound", "path": str(path), "seconds": str(seconds), "origin": str(origin)}
        for kind, body in self._ask(request):
            if kind == b"D":
                wave = np.frombuffer(body, np.float32).reshape(2, -1)
            else:
                sounds = json.loads(body)["sounds"]
        return wave, sounds

    def kill(self) -> None:
        """Make the worker's current request fail; safe from another thread than the one that waits for it."""
        process = self._process
        if process is not None:
            process.kill()

    def close(self) -> None:
        """End the worker."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()
        if self._errors is not None:
            self._errors.close()
            self._errors = None

    def _ask(self, request: dict[str, Any]) -> Iterator[tuple[bytes, bytearray]]:
        """Send a request and yield the messages of its answer; the last one is JSON with "ok" true."""
        process = self._process if self._process and self._process.poll() is None else self._start()
        finished = False
        try:
            assert process.stdin is not None
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
            while not finished:
                kind, body = self._message(process)
                if kind == b"K":
                    continue
                if kind == b"J":
                    finished = True
                    answer = json.loads(body)
                    if not answer["ok"]:
                        raise Unusable(answer["reason"], lasting=answer["lasting"])
                yield kind, body
        except BrokenPipeError:
            raise self._died(process) from None
        finally:
            if not finished:  # the reader went away, or the worker did: its next bytes would answer the wrong question
                self.close()

    def _start(self) -> "subprocess.Popen[bytes]":
        self.close()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the worker
        home = str(Path(ltx2_job.__file__).parent.parent)
        paths = [home, *filter(None, [os.environ.get("PYTHONPATH")])]
        process = subprocess.Popen(
            self.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            start_new_session=True,  # Ctrl-C is for the run, which then ends the worker
            bufsize=0,
        )
        self._process = process
        assert process.stdout is not None
        with contextlib.suppress(OSError):  # more than an unprivileged user may have
            fcntl.fcntl(process.stdout.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        try:
            self._message(process)
        except Unusable as error:
            said = self._last_words()
            self.close()
            raise JobError(
                f"the media worker does not start ({said or error.reason}); try `{' '.join(self.command)}`"
            ) from error
        return process

    def _message(self, process: "subprocess.Popen[bytes]") -> tuple[bytes, bytearray]:
        head = self._read(process, 9)
        (length,) = struct.unpack("<Q", head[1:])
        return bytes(head[:1]), self._read(process, length)

    def _read(self, process: "subprocess.Popen[bytes]", length: int) -> bytearray:
        """Exactly `length` bytes. Raises Unusable if the worker ends or hangs."""
        assert process.stdout is not None
        data = bytearray(length)
        view, done, pipe = memoryview(data), 0, process.stdout.fileno()
        while done < length:
            if not select.select([pipe], [], [], self.patience)[0]:
                process.kill()
                raise Unusable(f"decoding made no progress for {self.patience:g} s", lasting=False)
            count = os.readv(pipe, [view[done:]])
            if not count:
                raise self._died(process)
            done += count
        return data

    def _died(self, process: "subprocess.Popen[bytes]") -> Unusable:
        deadline = time.monotonic() + 5
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)  # its pipe closes a moment before it can be waited for
        code = process.poll()
        if code is None:
            how = "closed its pipe"
        elif code < 0:
            how = f"was killed by {signal.Signals(-code).name}"
        else:
            how = f"ended with code {code} ({self._last_words()})"
        return Unusable(f"the decoder crashed on it: the worker {how}", lasting=False)

    def _last_words(self) -> str:
        """The last line the worker wrote to standard error."""
        if self._errors is None:
            return ""
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""
