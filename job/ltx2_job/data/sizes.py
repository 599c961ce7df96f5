"""Which shape a clip gets: frames on the grid of 8k + 1, width and height on the grid of 32. Pure, torch-free.

The video VAE takes 8k + 1 frames (one latent frame for the first, one for each further eight) and squares of 32 pixels.
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Protocol

from ltx2_job.data.decoder import Probe, Unusable

GRID: Final = 32
NEAR_WHOLE: Final = Fraction(1, 500)  # 30 : 29.97 counts as 1 : 1, for no frame of a clip of 20 s is dropped or doubled


class FrameOptions(Protocol):
    """The `video` block of a dataset, as far as lengths go."""

    @property
    def num_frames(self) -> int: ...
    @property
    def min_frames(self) -> int: ...
    @property
    def max_frames(self) -> int | None: ...
    @property
    def frame_rate(self) -> float | None: ...


@dataclass(frozen=True)
class Timing:
    """How many frames a clip has, and how they are taken from the file."""

    available: int  # frames in the file at this rate
    rate: Fraction  # frames per second of the training clip; goes into the RoPE
    as_they_are: bool  # one after another; otherwise by their time stamps
    whole: bool  # False: frames are dropped or doubled unevenly


def timing(probe: Probe, frame_rate: float | None) -> Timing:
    """The frames of a file at the wanted rate (None: its own; design decision 8).

    A file whose frames last unequally long is always sampled by time stamps, at its average rate when none is wanted,
    so that its motion and its sound keep their speed.
    """
    if frame_rate is None:
        rate = probe.rate
    else:
        rate = Fraction(frame_rate).limit_denominator(1001)
    if probe.regular and rate == probe.rate:
        return Timing(probe.frames, rate, as_they_are=True, whole=True)
    ratio = probe.rate / rate
    # Time stamps are rounded to the file's clock: a quarter of a frame keeps the last one.
    available = math.floor(probe.seconds * rate + Fraction(1, 4))
    whole = round(ratio) >= 1 and abs(ratio - round(ratio)) <= NEAR_WHOLE
    return Timing(max(1, available), rate, as_they_are=False, whole=whole or frame_rate is None)


def on_frame_grid(frames: int) -> int:
    """The largest 8k + 1 that is not above `frames`; 0 for none."""
    return (frames - 1) // 8 * 8 + 1 if frames > 0 else 0


def clip_frames(available: int, rate: Fraction, options: FrameOptions) -> int:
    """Frames of the training clip: `num_frames`, or all that a shorter file has, on the grid.

    Raises Unusable for a file that is shorter than min_frames or longer than max_frames; both and the file's length are
    compared on the grid, as is usual for this model.
    """
    told = f"{available} frame{'s' * (available != 1)} at {float(rate):g} fps"
    usable = on_frame_grid(available)
    if usable < on_frame_grid(options.min_frames):
        raise Unusable(f"{told}, min_frames is {options.min_frames}")
    if options.max_frames is not None and usable > on_frame_grid(options.max_frames):
        raise Unusable(f"{told}, max_frames is {options.max_frames}")
    return min(on_frame_grid(options.num_frames), usable)


def audio_latents(frames: int, rate: Fraction) -> int:
    """Audio latents of a clip, 25 per second: round(frames / rate * 25)."""
    return round(frames / rate * 25)


def on_grid(edge: float) -> int:
    """The multiple of 32 nearest to an edge in pixels, ties down, at least 32 (720 -> 704, 854 -> 864)."""
    return max(GRID, math.ceil(edge / GRID - 0.5) * GRID)


def training_size(probe: Probe, resolution: float, resolution_type: str) -> tuple[int, int]:
    """(width, height) of the training pixels for a source, as displayed.

    `pixel_area`: resolution is the edge of a square of the same area; `area`: the area in megapixels; `pixel`: the
    shorter edge. The edge goes to the grid first; the aspect, width / height rounded to two decimals, stretches it to
    edge * sqrt(aspect) by edge / sqrt(aspect), each on the grid again.
    """
    displayed = probe.width * probe.aspect
    aspect = round(float(displayed / probe.height), 2) or 0.01
    if resolution_type == "pixel":
        edge = on_grid(resolution)
        return (on_grid(edge * aspect), edge) if aspect >= 1 else (edge, on_grid(edge / aspect))
    edge = on_grid(math.sqrt(resolution * 1e6) if resolution_type == "area" else resolution)
    return on_grid(edge * math.sqrt(aspect)), on_grid(edge / math.sqrt(aspect))


def cover(width: Fraction | int, height: Fraction | int, target: tuple[int, int]) -> tuple[int, int, int, int]:
    """(scaled width, scaled height, left, top): the smallest even scaling that covers the target, and its centre cut.

    `width` and `height` are those of the source as displayed, `target` is (width, height).
    """
    scale = max(Fraction(target[0]) / width, Fraction(target[1]) / height)
    scaled = max(target[0], round(width * scale)), max(target[1], round(height * scale))
    return scaled[0], scaled[1], (scaled[0] - target[0]) // 2, (scaled[1] - target[1]) // 2
