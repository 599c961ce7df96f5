"""Writes small clips for tests with PyAV: any size, rate, timing, tags, rotation, and sound of any layout.

The pictures are made so that a test can tell frames apart: `number_of` reads a frame's number back from its pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import numpy as np

LAYOUTS = {"mono": 1, "stereo": 2, "5.1": 6, "7.1": 8}
CELLS = 8  # bits of the frame number drawn along the top edge


def picture(index: int, width: int, height: int) -> np.ndarray:
    """uint8 RGB: a colour ramp, a bright square that moves, and the frame's number as black and white cells on top."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    image = np.stack([40 + 120 * x / width, 60 + 120 * y / height, np.full_like(x, 90 + index % 60)], -1)
    left = (index * 3) % max(1, width - width // 4)
    image[height // 2 : height // 2 + height // 5, left : left + width // 4] = (230, 210, 40)
    cell = width // CELLS
    for bit in range(CELLS):
        image[: height // 4, bit * cell : (bit + 1) * cell] = 235 if index >> bit & 1 else 16
    return image.astype(np.uint8)


def number_of(frame: np.ndarray) -> int:
    """The number that `picture` drew into a frame [height, width, 3], of any size (not cropped at the sides)."""
    height, width = frame.shape[:2]
    centres = [(2 * bit + 1) * width // (2 * CELLS) for bit in range(CELLS)]
    row = frame[height // 8].astype(np.float32).mean(-1)
    return sum(int(row[centre] > 125) << bit for bit, centre in enumerate(centres))


def tone(frequency: float, seconds: float, rate: int, level: float = 0.25) -> np.ndarray:
    """A sine, [S] float32."""
    return (level * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def write_clip(
    path: Path,
    *,
    width: int = 96,
    height: int = 64,
    frames: int = 25,
    fps: Fraction | int = 25,
    times: Sequence[Fraction] | None = None,
    start: Fraction | int = 0,
    layout: str | None = "stereo",
    rate: int = 48_000,
    level: float = 0.25,
    wave: np.ndarray | None = None,
    sound_start: Fraction | int = 0,
    codec: str = "libx264",
    audio_codec: str = "aac",
    pixel_format: str = "yuv420p",
    aspect: Fraction | None = None,
    rotation: int = 0,
    tags: dict[str, int] | None = None,
    draw: Callable[[int, int, int], np.ndarray] = picture,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
) -> Path:
    """Write one clip; the container follows the suffix.

    times: display time of each frame in seconds (variable frame rate); otherwise frame i is shown at start + i / fps.
    layout: None = no audio track; wave [C, S]: the sound itself, otherwise a tone of another pitch in each channel;
    level 0 = silence. sound_start: seconds by which the audio track starts late. rotation: degrees in the display
    matrix. tags: attributes of the encoder such as {"colorspace": 1, "color_trc": 16}. options, container_options: of
    the encoder and of the muxer.
    """
    import av
    from av.audio.stream import AudioStream
    from av.video.stream import VideoStream

    path.parent.mkdir(parents=True, exist_ok=True)
    shown = list(times) if times is not None else [Fraction(i) / Fraction(fps) + Fraction(start) for i in range(frames)]
    seconds = float(shown[-1] - shown[0]) + 1 / float(fps)
    with av.open(str(path), "w", options=container_options or {}) as container:
        video: Any = cast(VideoStream, container.add_stream(codec, rate=Fraction(fps)))
        video.width, video.height, video.pix_fmt = width, height, pixel_format
        defaults = {"crf": "10", "preset": "ultrafast"} if codec == "libx264" else {}
        video.options = {**defaults, **(options or {})}
        base = Fraction(1, 90_000) if times is not None or start else 1 / Fraction(fps)
        video.codec_context.time_base = base
        for name, value in (tags or {}).items():
            setattr(video.codec_context, name, value)
        if aspect is not None:
            video.sample_aspect_ratio = aspect
        if rotation:
            video.set_display_rotation(rotation)
        audio: AudioStream | None = None
        if layout is not None:
            audio = cast(AudioStream, container.add_stream(audio_codec, rate=rate, layout=layout))
        for index, time in enumerate(shown):
            frame: Any = av.VideoFrame.from_ndarray(draw(index, width, height), format="rgb24")
            frame.pts = round(time / base)
            frame.time_base = base
            if times is None:
                frame.duration = round(1 / Fraction(fps) / base)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if audio is not None and layout is not None:
            if wave is None:
                channels = [tone(220 * (1 + i), seconds, rate, level) for i in range(LAYOUTS[layout])]
                wave = np.stack(channels)
            size = audio.codec_context.frame_size or 1024
            late = round(Fraction(sound_start) * rate)
            for first in range(0, wave.shape[1], size):
                block = np.ascontiguousarray(wave[:, first : first + size].T.reshape(1, -1).astype(np.float32))
                sound: Any = av.AudioFrame.from_ndarray(block, format="flt", layout=layout)
                sound.sample_rate, sound.pts, sound.time_base = rate, late + first, Fraction(1, rate)
                container.mux(audio.encode(sound))
            container.mux(audio.encode(None))
    return path
