"""Clips as people really have them, written with PyAV: one maker for each kind that went wrong somewhere once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import numpy as np

from media import picture, tone, write_clip

HOURS_8 = 8 * 3600


def planes(
    path: Path,
    images: Iterable[Any],
    codec: str = "libx264",
    *,
    fps: int = 25,
    options: dict[str, str] | None = None,
    tags: dict[str, int] | None = None,
    metadata: dict[str, str] | None = None,
) -> Path:
    """A file without sound from av.VideoFrames, whose numbers go to the encoder as they are.

    libx265 gives fewer frames than it reorders decoding times out of nowhere: a clip of two needs bframes=0.
    """
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        video: Any = None
        for index, image in enumerate(images):
            if video is None:
                video = container.add_stream(codec, rate=fps)
                video.width, video.height, video.pix_fmt = image.width, image.height, image.format.name
                video.options = options or {}
                video.metadata.update(metadata or {})
                for name, value in (tags or {}).items():
                    setattr(video.codec_context, name, value)
            image.pts, image.time_base, image.duration = index, Fraction(1, fps), 1
            container.mux(video.encode(image))
        container.mux(video.encode(None))
    return path


def grey_ramp(format_: str, first: int, last: int, width: int = 448, height: int = 64) -> tuple[Any, np.ndarray]:
    """(a frame of YUV 4:2:0 or 4:2:2 without colour whose luma rises from left to right, that luma [width])."""
    import av

    deep = "10le" in format_
    luma = np.round(np.linspace(first, last, width)).astype(np.uint16 if deep else np.uint8)
    frame: Any = av.VideoFrame(width, height, format_)
    for number, plane in enumerate(frame.planes):
        row = np.full(plane.line_size // luma.itemsize, 512 if deep else 128, luma.dtype)
        if number == 0:
            row[:width] = luma
        plane.update(np.tile(row, plane.height).tobytes())
    return frame, luma


def rgba(colours: list[tuple[int, int, int, int]], format_: str, width: int = 96, height: int = 64) -> Any:
    """A frame of vertical stripes with the given colours and opacities."""
    import av

    image = np.zeros((height, width, 4), np.uint8)
    for number, colour in enumerate(colours):
        image[:, number * width // len(colours) : (number + 1) * width // len(colours)] = colour
    frame = av.VideoFrame.from_ndarray(image, format="rgba")
    return frame if format_ == "rgba" else frame.reformat(format=format_)


def bar(instant: int, width: int = 192, height: int = 64) -> np.ndarray:
    """uint8 RGB: a white bar of 16 pixels on grey that moves by 8 pixels per instant."""
    image = np.full((height, width, 3), 60, np.uint8)
    image[:, 8 + 8 * instant : 24 + 8 * instant] = 220
    return image


def interlaced(path: Path, frames: int = 9) -> Path:
    """Each frame holds two instants, bottom field first: lines 1, 3, … show `bar(2 k)`, then 0, 2, … `bar(2 k + 1)`."""
    import av

    def images() -> Iterator[Any]:
        for index in range(frames):
            image = bar(2 * index)
            image[::2] = bar(2 * index + 1)[::2]
            yield av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuv444p")

    return planes(path, images(), options={"flags": "+ildct", "crf": "1"})


def with_cover(path: Path, *, film: bool) -> Path:
    """Sound and an attached cover picture of 300 x 300, with or without a film of 25 frames."""
    import av
    from av.stream import Disposition

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        cover: Any = container.add_stream("mjpeg", rate=25)
        cover.width, cover.height, cover.pix_fmt = 300, 300, "yuvj420p"
        cover.disposition = Disposition.attached_pic
        video: Any = container.add_stream("libx264", rate=25) if film else None
        if film:
            video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
        audio: Any = container.add_stream("aac", rate=48_000, layout="mono")
        image = av.VideoFrame.from_ndarray(picture(170, 300, 300), format="rgb24")
        image.pts = 0
        container.mux([*cover.encode(image), *cover.encode(None)])
        for index in range(25 if film else 0):
            image = av.VideoFrame.from_ndarray(picture(index, 96, 64), format="rgb24")
            image.pts, image.time_base = index, Fraction(1, 25)
            container.mux(video.encode(image))
        container.mux(video.encode(None) if film else [])
        _encode(container, audio, tone(440, 1.0, 48_000)[None], "mono")
    return path


def two_tracks(path: Path, pitches: tuple[int, int]) -> Path:
    """A film with two audio tracks, a tone each."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        video: Any = container.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
        tracks: list[Any] = [container.add_stream("aac", rate=48_000, layout="mono") for _ in pitches]
        for index in range(25):
            image = av.VideoFrame.from_ndarray(picture(index, 96, 64), format="rgb24")
            image.pts, image.time_base = index, Fraction(1, 25)
            container.mux(video.encode(image))
        container.mux(video.encode(None))
        for track, pitch in zip(tracks, pitches, strict=True):
            _encode(container, track, tone(pitch, 1.0, 48_000)[None], "mono")
    return path


def _encode(container: Any, track: Any, wave: np.ndarray, layout: str) -> None:
    import av

    for first in range(0, wave.shape[1], 1024):
        block = np.ascontiguousarray(wave[:, first : first + 1024].T.reshape(1, -1))
        sound: Any = av.AudioFrame.from_ndarray(block, format="flt", layout=layout)
        sound.sample_rate, sound.pts = 48_000, first
        container.mux(track.encode(sound))
    container.mux(track.encode(None))


def sound_only(path: Path) -> Path:
    """An mp4 that holds sound and nothing else."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        _encode(container, container.add_stream("aac", rate=48_000, layout="mono"), tone(440, 1, 48_000)[None], "mono")
    return path


def restamped(path: Path, stamps: list[int]) -> Path:
    """Matroska with intra-only pictures, the i-th of which is displayed at stamps[i] milliseconds."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        video: Any = container.add_stream("ffv1", rate=25)
        video.width, video.height, video.pix_fmt = 96, 64, "yuv444p"
        made = []
        for index in range(len(stamps)):
            image: Any = av.VideoFrame.from_ndarray(picture(index, 96, 64), format="rgb24").reformat(format="yuv444p")
            image.pts, image.time_base = index, Fraction(1, 25)
            made += video.encode(image)
        made += video.encode(None)
        for index, (packet, stamp) in enumerate(zip(made, stamps, strict=True)):
            packet.time_base, packet.pts, packet.dts = Fraction(1, 1000), stamp, min(index, stamp)
            container.mux(packet)
    return path


def boxes(path: Path, kind: bytes, change: Callable[[bytearray, int], None]) -> Path:
    """Change every ISO box of a kind: `change` gets all bytes and the place behind the box's name."""
    raw = bytearray(path.read_bytes())
    place = raw.find(kind)
    while place >= 0:
        change(raw, place + 4)
        place = raw.find(kind, place + 4)
    path.write_bytes(raw)
    return path


def put(raw: bytearray, place: int, value: int) -> None:
    """A big-endian 32-bit number."""
    raw[place : place + 4] = value.to_bytes(4, "big", signed=True)


def get(raw: bytearray, place: int) -> int:
    """A big-endian 32-bit number."""
    return int.from_bytes(raw[place : place + 4], "big", signed=True)


def claims(path: Path, seconds: int) -> Path:
    """Overwrite every length that the headers of an mp4 tell: movie, tracks and media."""
    movie = 0

    def header(raw: bytearray, place: int) -> None:
        nonlocal movie
        movie = movie or get(raw, place + 12)
        put(raw, place + 16, seconds * get(raw, place + 12))

    boxes(path, b"mvhd", header)
    boxes(path, b"mdhd", header)
    return boxes(path, b"tkhd", lambda raw, place: put(raw, place + 20, seconds * movie))


def trimmed(path: Path, frames: int, ticks: int) -> Path:
    """Let the edit list of an mp4's first track begin `frames` frames of `ticks` ticks later."""
    first = True

    def later(raw: bytearray, place: int) -> None:
        nonlocal first
        if first:
            put(raw, place + 12, get(raw, place + 12) + frames * ticks)
        first = False

    return boxes(path, b"elst", later)


def cut(path: Path, share: float) -> Path:
    """Keep only the first part of a file."""
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * share)])
    return path


def nearest(times: list[Fraction], rate: Fraction, count: int) -> list[int]:
    """For each k / rate the number of the frame whose time is nearest; of two as near the earlier one."""
    start = times[0]
    return [
        min(range(len(times)), key=lambda i, k=k: (abs(times[i] - start - k / rate), i))  # type: ignore[misc]
        for k in range(count)
    ]


def screen_times(frames: int = 60) -> list[Fraction]:
    """Display times as a screen recorder writes them: whole milliseconds, bursts and pauses."""
    steps = np.random.default_rng(11).choice([1, 2, 7, 16, 17, 33, 120, 350], frames - 1)
    return [Fraction(int(t), 1000) for t in np.concatenate([[0], np.cumsum(steps)])]


def h264(path: Path, **options: Any) -> Path:
    """`write_clip` without sound unless told."""
    return write_clip(path, **cast(dict[str, Any], {"layout": None, **options}))


def film_4k(
    path: Path, codec: str, format_: str, rounds: int, fps: int = 25, options: dict[str, str] | None = None
) -> Path:
    """3840 x 2160 with noise in motion: 11 frames, encoded once, `rounds` times one after another."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(0).integers(0, 256, (270, 480, 3)).astype(np.uint8)
    image = coarse.repeat(8, 0).repeat(8, 1)
    with av.open(str(path), "w") as container:
        video: Any = container.add_stream(codec, rate=fps)
        video.width, video.height, video.pix_fmt = 3840, 2160, format_
        video.options = options or {}
        made = []
        for index in range(11):
            frame: Any = av.VideoFrame.from_ndarray(np.roll(image, 8 * index, 1), format="rgb24")
            frame.pts, frame.time_base, frame.duration = index, Fraction(1, fps), 1
            made += video.encode(frame)
        made += video.encode(None)
        start = [(packet.pts, packet.dts) for packet in made]
        for turn in range(rounds):
            for packet, (pts, dts) in zip(made, start, strict=True):
                packet.stream, packet.time_base = video, Fraction(1, fps)
                packet.pts, packet.dts = pts + 11 * turn, dts + 11 * turn
                container.mux(packet)
    return path


def peak_bytes(process: int) -> int:
    """The most memory that a living process ever held (VmHWM of /proc)."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
