"""The frames of a file as they are displayed: deinterlaced, at the wanted times, RGB in full range, upright.

Part of the media worker (data/worker.py): imports av and numpy, never torch.
"""

import os
import struct
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any, Final, cast

import av
import numpy as np
from av.filter import Graph
from av.stream import Disposition
from av.video.reformatter import ColorRange, Colorspace, Interpolation

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
_HDR: Final = {16: "PQ (SMPTE ST 2084)", 18: "HLG (ARIB STD-B67)"}  # transfer characteristics
_THREADS: Final = 4  # of one decoder: each holds frames of its own, and several workers share the machine
_HD_LINES: Final = 720  # untagged video with at least this many lines is BT.709, with fewer BT.601 (design N5)

Turn = tuple[bool, bool, bool]
"""(swap axes, then flip upside down, then mirror)."""


class Refused(Exception):
    """A file that cannot be used. `lasting`: a later try on the same bytes cannot end otherwise."""

    def __init__(self, reason: str, *, lasting: bool = True):
        super().__init__(reason)
        self.lasting = lasting


def frames(path: str, count: int, rate: Fraction, as_they_are: bool) -> Iterator[np.ndarray]:
    """The first `count` frames as displayed, uint8 [height, width, 3] RGB, in full range.

    `as_they_are`: one after another. Otherwise at times 0, 1 / rate, 2 / rate ... after the first frame, each time the
    frame displayed nearest to it. Raises Refused when the file ends or breaks before.
    """
    given = 0
    try:
        with av.open(path) as container:
            pictures = _pictures(container.decode(video_of(container)))
            for picture in pictures if as_they_are else at_rate(pictures, rate, count):
                if picture.frame.is_corrupt:  # decoders patch damaged places with their neighbours
                    raise Refused(f"frame {given} of {count} is damaged")
                yield picture.pixels()
                given += 1
                if given == count:
                    return
    except av.error.FFmpegError as error:
        reason = f"decoding broke at frame {given} of {count}: {text_of(error)}"
        raise Refused(reason, lasting=not of_the_machine(error)) from error
    raise Refused(f"the picture ends at frame {given} of {count}")


def at_rate(pictures: "Iterator[Picture]", rate: Fraction, count: int) -> "Iterator[Picture]":
    """For each time k / rate, k < count, the picture whose own time is nearest to it; the earlier one of two as near.

    Times count from the first picture. The last one is shown for its own length, at least for the average one: later
    times are not served, so that what is missing at the end is noticed.
    """
    first: Fraction | None = None
    before: Picture | None = None
    seen = wanted = 0
    for picture in pictures:
        seen += 1
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
        length = max(before.length, (_time(before) - first) / max(1, seen - 1))
        while wanted < count and first + wanted / rate <= _time(before) + length:
            yield before
            wanted += 1


def _pictures(decoded: "Iterable[av.VideoFrame]") -> "Iterator[Picture]":
    """The frames as pictures. Raises Refused where a frame is displayed before the one decoded before it."""
    last: Fraction | None = None
    turn: Turn | None = None
    for frame in progressive(decoded):
        # Asked once: a frame that was asked for its side data holds itself, until Python looks for circles, which it
        # does every few hundred frames. Those of a 4K film are gigabytes.
        turn = turn or turn_of(frame)
        picture = Picture(frame, turn)
        if picture.time is not None:
            if last is not None and picture.time < last:
                raise Refused(
                    f"its time stamps run backwards (a frame at {float(picture.time):g} s follows one at "
                    f"{float(last):g} s); re-encode it first"
                )
            last = picture.time
        yield picture


def progressive(decoded: "Iterable[av.VideoFrame]") -> "Iterator[av.VideoFrame]":
    """The same number of frames with the same times; from the first one on that is flagged as interlaced, bwdif
    (Bob Weaver) makes a whole frame out of the first field of each flagged one.
    """
    graph: Graph | None = None
    for frame in decoded:
        if graph is None and frame.interlaced_frame:
            graph = _deinterlacer(frame)
        if graph is None:
            yield frame
        else:
            graph.push(frame)
            yield from _ready(graph)
    if graph is not None:
        graph.push(None)
        yield from _ready(graph)


def _deinterlacer(frame: "av.VideoFrame") -> Graph:
    graph = Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=cast(Fraction, frame.time_base)
    )
    graph.link_nodes(
        source, graph.add("bwdif", "mode=send_frame:deint=interlaced"), graph.add("buffersink")
    ).configure()
    return graph


def _ready(graph: Graph) -> "Iterator[av.VideoFrame]":
    while True:
        try:
            yield cast(av.VideoFrame, graph.pull())
        except (av.error.BlockingIOError, av.error.EOFError):  # it wants more, or it has ended
            return


class Picture:
    """A decoded frame with its time; converted to RGB only when wanted, and then once."""

    def __init__(self, frame: "av.VideoFrame", turn: Turn):
        self.frame, self._turn = frame, turn
        base = fraction(frame.time_base)
        self.time = None if frame.pts is None or not base else frame.pts * base
        self.length = (frame.duration or 0) * base
        self._pixels: np.ndarray | None = None

    def pixels(self) -> np.ndarray:
        """uint8 [height, width, 3], turned as displayed."""
        if self._pixels is None:
            rgb = self._rgb()
            transpose, upside_down, mirrored = self._turn
            rgb = rgb.transpose(1, 0, 2) if transpose else rgb
            rgb = rgb[::-1] if upside_down else rgb
            rgb = rgb[:, ::-1] if mirrored else rgb
            self._pixels = np.ascontiguousarray(rgb)
        return self._pixels

    def _rgb(self) -> np.ndarray:
        """As stored; where the frame has an alpha channel, over black, as players show it."""
        source, matrix = self.frame, matrix_of(self.frame)
        full = source.color_range == ColorRange.JPEG or source.format.name.startswith("yuvj")
        alpha = any(component.is_alpha for component in source.format.components)
        # From more than 8 bits in full range libswscale's 8-bit output is half a step too bright; its 16 bits are not.
        wide = full and any(component.bits > 8 for component in source.format.components)
        pixels = source.reformat(
            format=("rgba64le" if wide else "rgba") if alpha else ("rgb48le" if wide else "rgb24"),
            src_colorspace=matrix,
            dst_colorspace=matrix,
            src_color_range=ColorRange.JPEG if full else ColorRange.MPEG,
            dst_color_range=ColorRange.JPEG,
            interpolation=_SCALER,
            threads=1,
        ).to_ndarray()
        if wide:
            pixels = ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
        if not alpha:
            return pixels
        weighted = pixels[..., :3] * pixels[..., 3:].astype(np.uint16)
        return ((weighted + 127) // 255).astype(np.uint8)


def fraction(rational: Any) -> Fraction:
    """A Fraction from the library's own rational numbers; 0 for None and for its 0/0 and 0/1 (not told)."""
    if rational is None or not rational.denominator:
        return Fraction(0)
    return Fraction(rational.numerator, rational.denominator)


def _time(picture: Picture) -> Fraction:
    return cast(Fraction, picture.time)


def video_of(container: Any) -> Any:
    """The video stream to show. Raises Refused without one; a cover picture (as music files have) is none."""
    films = [each for each in container.streams.video if not each.disposition & Disposition.attached_pic]
    if not films:
        cover = ", only a cover picture" if container.streams.video else ""
        raise Refused(f"there is no video track in it{cover}")
    best = container.streams.best("video")
    stream = best if best in films else films[0]
    stream.thread_type = "AUTO"
    stream.codec_context.thread_count = min(_THREADS, len(os.sched_getaffinity(0)))
    return stream


def matrix_of(frame: "av.VideoFrame") -> Colorspace:
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


def turn_of(frame: "av.VideoFrame") -> Turn:
    """How the stored frames of a track become the displayed ones, from one frame's display matrix.

    In it (x, y) goes to (a x + c y, b x + d y), 16.16 fixed point. Raises Refused for a matrix that is no rotation by
    quarter turns, with or without mirroring.
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


def text_of(error: BaseException) -> str:
    """The library's message without the path, which the caller names."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def of_the_machine(error: BaseException) -> bool:
    """Whether the volume or the memory is at fault (file gone, I/O error, no memory), and not what the file holds."""
    return isinstance(error, OSError | MemoryError)
