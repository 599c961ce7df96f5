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
from collections.abc import Callable, Iterator
from fractions import Fraction
from statistics import median
from typing import Any, BinaryIO, Final, cast

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation

from ltx2_job.data import audio

# Exact chroma upsampling and rounding instead of libswscale's fast ones: other pixels, hardly more time.
_SCALER: Final = (
    Interpolation.BICUBIC | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP | Interpolation.ACCURATE_RND
)
# ISO/IEC 23091-2 matrix coefficients that can be converted; 2 = not tagged.
_MATRICES: Final = {
    1: Colorspace.ITU709,
    4: Colorspace.FCC,
    5: Colorspace.ITU601,
    6: Colorspace.ITU601,
    7: Colorspace.SMPTE240M,
    9: Colorspace.BT2020,
}
_UNTAGGED: Final = 2
ALIVE_SECONDS: Final = 5.0
_HDR: Final = {16: "PQ (SMPTE ST 2084)", 18: "HLG (ARIB STD-B67)"}  # transfer characteristics
_HD_LINES: Final = 720  # untagged video with at least this many lines is BT.709, with fewer BT.601 (design N5)


class Refused(Exception):
    """A file that cannot be used. `lasting`: a later try on the same bytes cannot end otherwise."""

    def __init__(self, reason: str, *, lasting: bool = True):
        super().__init__(reason)
        self.lasting = lasting


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
    if not os.path.getsize(path):
        raise Refused("the file is empty (0 bytes)")
    with av.open(path) as container:
        stream = _video(container)
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
        frame = next(iter(container.decode(_video(container))), None)
        if frame is None:
            raise Refused("no frame can be decoded")
        _matrix(frame)
        transpose, _, _ = _turn(frame)
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


def frames(path: str, count: int, rate: Fraction, as_they_are: bool) -> Iterator[np.ndarray]:
    """The first `count` frames as displayed, uint8 [height, width, 3] RGB, in full range.

    `as_they_are`: one after another. Otherwise at times 0, 1 / rate, 2 / rate ... after the first frame, each time the
    frame displayed nearest to it. Raises Refused when the file ends or breaks before.
    """
    given = 0
    try:
        with av.open(path) as container:
            decoded = (_Picture(frame) for frame in container.decode(_video(container)))
            for picture in decoded if as_they_are else at_rate(decoded, rate, count):
                if picture.frame.is_corrupt:  # decoders patch damaged places with their neighbours
                    raise Refused(f"frame {given} of {count} is damaged")
                yield picture.pixels()
                given += 1
                if given == count:
                    return
    except av.error.FFmpegError as error:
        reason = f"decoding broke at frame {given} of {count}: {_text(error)}"
        raise Refused(reason, lasting=not _of_the_machine(error)) from error
    raise Refused(f"the picture ends at frame {given} of {count}")


def at_rate(pictures: "Iterator[_Picture]", rate: Fraction, count: int) -> "Iterator[_Picture]":
    """For each time k / rate, k < count, the picture whose own time is nearest to it; the earlier one of two as near.

    Times count from the first picture. After the last picture at most one more time is served, so that what is
    missing at the end is noticed.
    """
    first: Fraction | None = None
    before: _Picture | None = None
    wanted = 0
    for picture in pictures:
        if picture.time is None:
            raise Refused("its frames carry no time stamps, so it cannot be brought to another frame rate")
        first = picture.time if first is None else first
        while before is not None and wanted < count:
            when = first + wanted / rate
            if abs(when - _time(before)) > abs(picture.time - when):
                break
            yield before
            wanted += 1
        before = picture
    if before is not None and first is not None:
        # The last picture stands for one of its own lengths.
        while wanted < count and first + wanted / rate <= _time(before) + before.length:
            yield before
            wanted += 1


class _Picture:
    """A decoded frame with its time; converted to RGB only when wanted, and then once."""

    def __init__(self, frame: "av.VideoFrame"):
        self.frame = frame
        base = fraction(frame.time_base)
        self.time = None if frame.pts is None or not base else frame.pts * base
        self.length = (frame.duration or 0) * base
        self._pixels: np.ndarray | None = None

    def pixels(self) -> np.ndarray:
        """uint8 [height, width, 3], turned as displayed."""
        if self._pixels is None:
            source, matrix = self.frame, _matrix(self.frame)
            full = source.color_range == ColorRange.JPEG or source.format.name.startswith("yuvj")
            rgb = source.reformat(
                format="rgb24",
                src_colorspace=matrix,
                dst_colorspace=matrix,
                src_color_range=ColorRange.JPEG if full else ColorRange.MPEG,
                dst_color_range=ColorRange.JPEG,
                interpolation=_SCALER,
                threads=1,
            ).to_ndarray()
            transpose, upside_down, mirrored = _turn(source)
            rgb = rgb.transpose(1, 0, 2) if transpose else rgb
            rgb = rgb[::-1] if upside_down else rgb
            rgb = rgb[:, ::-1] if mirrored else rgb
            self._pixels = np.ascontiguousarray(rgb)
        return self._pixels


def fraction(rational: Any) -> Fraction:
    """A Fraction from the library's own rational numbers; 0 for None and for its 0/0 and 0/1 (not told)."""
    if rational is None or not rational.denominator:
        return Fraction(0)
    return Fraction(rational.numerator, rational.denominator)


def _time(picture: _Picture) -> Fraction:
    return cast(Fraction, picture.time)


def _video(container: Any) -> Any:
    stream = container.streams.best("video")
    if stream is None:
        raise Refused("there is no video track in it")
    stream.thread_type = "AUTO"
    return stream


def _shown(packet: Any) -> bool:
    """Whether a packet's frame is displayed: an edit list may cut frames that only others are predicted from."""
    return packet.size > 0 and not packet.is_discard


def _matrix(frame: "av.VideoFrame") -> Colorspace:
    """The matrix between YUV and RGB. Raises Refused for high dynamic range and for matrices of no use here."""
    if frame.color_trc in _HDR:
        name = _HDR[int(frame.color_trc)]
        raise Refused(f"high dynamic range video with transfer {name}; convert it to SDR (BT.709) first")
    if frame.format.is_rgb:
        return Colorspace.ITU709  # not used: there is nothing to convert
    if frame.colorspace == _UNTAGGED:
        return Colorspace.ITU709 if frame.height >= _HD_LINES else Colorspace.ITU601
    if int(frame.colorspace) not in _MATRICES:
        raise Refused(f"colour matrix {int(frame.colorspace)} is not supported; convert it to BT.709 first")
    return _MATRICES[int(frame.colorspace)]


def _turn(frame: "av.VideoFrame") -> tuple[bool, bool, bool]:
    """How a stored frame becomes the displayed one: (swap axes, then flip upside down, then mirror).

    From the display matrix, in which (x, y) goes to (a x + c y, b x + d y), 16.16 fixed point. Raises Refused for a
    matrix that is no rotation by quarter turns, with or without mirroring.
    """
    data: Any = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return (False, False, False)
    a, b, _, c, d, *_ = (value / 65536 for value in struct.unpack("=9i", bytes(data)[:36]))
    if abs(b) < 1e-3 and abs(c) < 1e-3 and a and d:
        return (False, d < 0, a < 0)
    if abs(a) < 1e-3 and abs(d) < 1e-3 and b and c:
        return (True, b < 0, c < 0)
    raise Refused("it is rotated by an angle that is no multiple of 90 degrees; render it upright first")


def _text(error: BaseException) -> str:
    """The library's message without the path, which the caller names."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _of_the_machine(error: BaseException) -> bool:
    """Whether the volume or the memory is at fault (file gone, I/O error, no memory), and not what the file holds."""
    return isinstance(error, OSError | MemoryError)


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
        result = {"ok": False, "reason": f"{what} ({_text(error)})", "lasting": not _of_the_machine(error)}
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
