"""The shape of a batch: what of clips costs memory and time."""

import math
from dataclasses import dataclass
from typing import Final, Literal

LATENT_CHANNELS: Final = 128
SPATIAL_COMPRESSION: Final = 32
TEMPORAL_COMPRESSION: Final = 8
AUDIO_LATENTS_PER_SECOND: Final = 25
SLOWEST_FRAME_RATE: Final = 24.0  # common rate with the most sound per frame
WIDEST_ASPECT: Final = 16 / 9


@dataclass(frozen=True)
class Shape:
    """The largest batch of one process: `area` latent positions per frame, sizes in pixels and frames."""

    batch: int
    area: float
    frames: int
    audio_latents: int

    @property
    def video_tokens(self) -> int:
        """Video tokens of one clip: latent frames x latent area, (8k+1) frames making k+1."""
        return math.ceil(((self.frames - 1) // TEMPORAL_COMPRESSION + 1) * self.area)

    @property
    def pixels(self) -> float:
        """Pixels of one clip, all frames."""
        return self.frames * self.area * SPATIAL_COMPRESSION**2


def shape(width: int, height: int, frames: int, batch: int = 1, *, sound: bool = True) -> Shape:
    """The shape of clips of a known size."""
    area = width / SPATIAL_COMPRESSION * height / SPATIAL_COMPRESSION
    return Shape(batch, area, frames, audio_latents(frames) if sound else 0)


def audio_latents(frames: int, frame_rate: float = SLOWEST_FRAME_RATE) -> int:
    """Audio latents beside so many frames: F / fps x 25."""
    return round(frames / frame_rate * AUDIO_LATENTS_PER_SECOND)


def latent_area(resolution: float, kind: Literal["pixel_area", "pixel", "area"]) -> float:
    """The most latent positions of a frame for a data set's `resolution`, sides being rounded to the grid of 32.

    pixel_area: edge of the square of equal area; area: megapixels; pixel: shorter edge, the longer one at most 16:9.
    """
    edge = math.sqrt(resolution * 1e6) if kind == "area" else resolution
    short = edge / SPATIAL_COMPRESSION + 0.5
    long = short if kind != "pixel" else edge * WIDEST_ASPECT / SPATIAL_COMPRESSION + 0.5
    return short * long
