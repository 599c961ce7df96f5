"""The process that touches media files: `python -m ltx2_job.data.worker`, driven by data/decoder.py over two pipes.

Decoders are C code that meets files from anywhere. They run here and nowhere else, so that a file which crashes or
hangs one costs that clip and not the run. This process imports av and numpy only, never torch.

Requests are JSON lines on standard input. Answers are messages on standard output: one byte for the kind, 8 bytes for
the length (little endian), the body. Kind "D" is raw data, "K" only says that the worker is alive, "J" is JSON and ends
the answer: {"ok": true, ...}, or {"ok": false, "reason": ..., "lasting": whether the same bytes will fail again}; the
first message says that the worker is ready. Frames go out one by one as they are decoded; the pipe holds the decoder
back when the reader is busy, so a long clip never lies in memory (nor on a disk) as a whole.
"""

import faulthandler
import itertools
import json
import os
import struct
import sys
import time
from collections.abc import Callable
from fractions import Fraction
from statistics import median
from typing import Any, BinaryIO, Final

import av

from ltx2_job.data import audio
from ltx2_job.data.pictures import Refused, fraction, frames, matrix_of, of_the_machine, text_of, turn_of, video_of
from ltx2_job.data.whole import promised_bytes

ALIVE_SECONDS: Final = 5.0


class _Alive:
    """Tells the reader every few seconds that a request which sends nothing yet is still worked on."""

    def __init__(self, pipe: BinaryIO):
        self._pipe, self._last = pipe, time.monotonic()

    def __call__(self) -> None:
        if time.monotonic() - self._last > ALIVE_SECONDS:
            self._last = time.monotonic()
            _send(self._pipe, b"K", b"")
            self._pipe.flush()


def probe(path: str, alive: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """What a file holds, from all its packets and its first frame. Fractions are "a/b" strings.

    width, height: as displayed, in stored pixels (turned by a rotation of 90 degrees, not yet stretched by `aspect`);
    aspect: width of a displayed pixel / its height; frames: how many are displayed; rate: own frames per second;
    regular: whether all frames last equally long; seconds: from the first frame to the end of the last;
    origin: when the first frame is displayed, on the file's clock; sound: whether there is an audio track.
    `alive` is called for every packet: reading all of a long film takes minutes.
    """
    have, promised = os.path.getsize(path), promised_bytes(path)
    if not have:
        raise Refused("the file is empty (0 bytes)")
    if have < promised:
        raise Refused(f"it is cut off: {have:,} of its {promised:,} bytes are there; copy or download it again")
    with av.open(path) as container:
        stream = video_of(container)
        stamps = []
        for packet in container.demux(stream):
            alive()
            if packet.pts is not None and _shown(packet):
                stamps.append(packet.pts)
        stamps.sort()
        base = fraction(stream.time_base)
        if not stamps or not base:
            raise Refused("no frame with a time stamp was found")
        rate, regular = frame_rate([stamp * base for stamp in stamps], base, fraction(stream.average_rate))
        sound = bool(container.streams.audio)
        aspect = fraction(stream.sample_aspect_ratio) or Fraction(1)
    with av.open(path) as container:
        frame = next(iter(container.decode(video_of(container))), None)
        if frame is None:
            raise Refused("no frame can be decoded")
        matrix_of(frame)
        transpose, _, _ = turn_of(frame)
    width, height = (frame.height, frame.width) if transpose else (frame.width, frame.height)
    return {
        "width": width,
        "height": height,
        "aspect": str(1 / aspect if transpose else aspect),
        "frames": len(stamps),
        "rate": str(rate),
        "regular": regular,
        "seconds": str((stamps[-1] - stamps[0]) * base + 1 / rate),
        "origin": str(stamps[0] * base),
        "sound": sound,
    }


def frame_rate(times: list[Fraction], base: Fraction, told: Fraction) -> tuple[Fraction, bool]:
    """(frames per second, whether it is constant) from the display times of all frames, in seconds.

    Where at least nine of ten frames last equally long, that length gives the rate (a lost frame does not change it);
    otherwise the average does. The rate `told` by the file (0: none) is taken where it agrees within 1 %, for it is
    exact. Raises Refused when the times do not advance.
    """
    if len(times) == 1:
        return told or Fraction(25), True
    steps = [after - before for before, after in itertools.pairwise(times)]
    usual = median(steps)
    slack = max(usual / 10, 3 * base / 2)  # time stamps are rounded to the file's clock
    near = [step for step in steps if abs(step - usual) <= slack]
    mean = (times[-1] - times[0]) / len(steps)
    if mean <= 0:
        raise Refused("the time stamps of its frames do not advance")
    steady = len(near) >= 0.9 * len(steps) and usual > 0
    rate = 1 / (sum(near, Fraction()) / len(near) if steady else mean)
    exact = told if told and abs(told - rate) <= rate / 100 else rate.limit_denominator(1001)
    return exact, len(near) == len(steps)


def _shown(packet: Any) -> bool:
    """Whether a packet's frame is displayed: an edit list may cut frames that only others are predicted from."""
    return packet.size > 0 and not packet.is_discard


def _send(pipe: BinaryIO, kind: bytes, body: Any) -> None:
    pipe.write(kind + struct.pack("<Q", memoryview(body).nbytes))
    pipe.write(body)


def answer(request: dict[str, Any], pipe: BinaryIO) -> None:
    """Serve one request: {"op": "probe" | "frames" | "sound", "path": ..., ...}."""
    path = request["path"]
    result: dict[str, Any] = {"ok": True}
    try:
        if request["op"] == "probe":
            result |= probe(path, _Alive(pipe))
        elif request["op"] == "frames":
            for array in frames(path, request["count"], Fraction(request["rate"]), request["as_they_are"]):
                _send(pipe, b"D", array.data)
                result["shape"] = array.shape
        elif request["op"] == "sound":
            wave = audio.read(path, Fraction(request["seconds"]), Fraction(request["origin"]))
            result["sounds"] = wave is not None and audio.sounds(wave)
            if wave is not None:
                _send(pipe, b"D", wave.data)
        else:
            raise Refused(f"unknown request {request['op']!r}")
    except audio.UnreadableSound as error:
        reason = f"{error}; set audio.auto_split: false to use the picture only"
        result = {"ok": False, "reason": reason, "lasting": True}
    except Refused as error:
        result = {"ok": False, "reason": str(error), "lasting": error.lasting}
    except (av.error.FFmpegError, OSError, ValueError) as error:
        what = "its sound cannot be decoded" if request["op"] == "sound" else "it cannot be read as a video"
        result = {"ok": False, "reason": f"{what} ({text_of(error)})", "lasting": not of_the_machine(error)}
    _send(pipe, b"J", json.dumps(result).encode())
    pipe.flush()


def main() -> None:
    """Serve requests until standard input ends."""
    faulthandler.enable()
    # Nothing but answers may reach the pipe: whatever a library prints goes to standard error.
    pipe = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    # The library's log level stays as it is (silent): setting one installs a callback that wants the interpreter's lock
    # from decoding threads, which can stand still for ever.
    _send(pipe, b"J", json.dumps({"ok": True, "av": av.__version__}).encode())  # ready
    pipe.flush()
    for line in sys.stdin.buffer:
        answer(json.loads(line), pipe)


if __name__ == "__main__":
    main()
