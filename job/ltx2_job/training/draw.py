"""Every random number of training, drawn outside the step from (seed, step, sample, role) alone.

Each sample has its own counter-based generator (Philox) per role, keyed by a hash of those four. So a draw does not
depend on what was drawn before it: resuming, the number of processes, the memory plan and how samples are grouped into
batches change nothing, and there is no generator state to save but the step.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

# Sampler of the noise level (the official trainer's; its mathematics is restated at `sigma_of`).
UNIFORM_SHARE = 0.1  # this share of samples takes a uniform level instead
EPSILON = 1e-3
LOW_QUANTILE, HIGH_QUANTILE = -2.5758, 3.0902  # the 0.5 % and 99.9 % points of the normal distribution
HELD_OUT = "held-out"  # stands in a key where training has the step, so that training never sees that noise


class Use(Protocol):
    """One use of a sample in an optimizer step; data.plan.Pick is one.

    `position` is its place in the whole step, the same at any world size; it tells two uses of one sample apart.
    """

    @property
    def sample(self) -> "Named": ...
    @property
    def position(self) -> int: ...


class Named(Protocol):
    """What a draw needs of a sample: its id, unique in the run."""

    @property
    def id(self) -> str: ...


@dataclass(frozen=True)
class Draw:
    """The random part of one micro-batch of B samples with N video and L audio tokens.

    video_noise [B, N, C] and audio_noise [B, L, C] fp32 standard normal; video_sigma and audio_sigma [B] fp32 in [0,
    1]; clean [B, N] bool, true on conditioned tokens (kept clean, timestep 0, not in the loss).
    """

    video_noise: Tensor
    audio_noise: Tensor
    video_sigma: Tensor
    audio_sigma: Tensor
    clean: Tensor

    def to(self, device: torch.device) -> "Draw":
        """The same draw on a device; from pinned memory without waiting."""
        return Draw(*(_move(value, device) for value in vars(self).values()))

    def pin(self) -> "Draw":
        """The same draw in page-locked memory, from which a copy to a GPU overlaps with its work."""
        return Draw(*(value.pin_memory() for value in vars(self).values()))


def generator(seed: int, step: int | str, sample: str, position: int, role: str) -> np.random.Generator:
    """The generator of one (seed, step, sample at a position, role); any difference gives an independent one."""
    text = f"{seed}\0{step}\0{sample}\0{position}\0{role}"
    key = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "little")
    return np.random.Generator(np.random.Philox(key=key))


def shift_of(tokens: int) -> float:
    """mu of the shifted logit-normal by a modality's own tokens: linear, 0.95 at 1024, 2.05 at 4096, not clamped."""
    return 0.95 + 1.10 * (tokens - 1024) / 3072


def sigma_of(normal: float, uniform: float, switch: float, mu: float) -> float:
    """A noise level from three variates: the official trainer's shifted logit-normal.

    z = mu + normal, y = sigmoid(z), stretched so that the 0.5 % and 99.9 % quantiles land on 0 and 1; below epsilon it
    is mirrored at epsilon; clamped to [0, 1]. Where `switch` < 0.1 the level is uniform in (epsilon, 1) instead.
    """
    if switch < UNIFORM_SHARE:
        return EPSILON + (1.0 - EPSILON) * uniform
    low, high = _sigmoid(mu + LOW_QUANTILE), _sigmoid(mu + HIGH_QUANTILE)
    level = (_sigmoid(mu + normal) - low) / (high - low)
    if level < EPSILON:
        level = 2.0 * EPSILON - level
    return min(1.0, max(0.0, level))


def static_sigma_of(normal: float, shift: float) -> float:
    """A noise level under `flow_schedule_shift`: s y / (1 + (s - 1) y) with y = sigmoid(normal).

    That is the plain logit-normal with mean ln(s), as the key means it in the guide's trainer: no stretching, no
    uniform share, the same for every token count.
    """
    level = _sigmoid(normal)
    return shift * level / (1.0 + (shift - 1.0) * level)


def draw(
    seed: int,
    step: int,
    uses: Sequence[Use],
    grid: tuple[int, int, int],
    audio_tokens: int,
    *,
    first_frame_probability: float,
    static_shift: float | None = None,
    channels: tuple[int, int] = (128, 128),
) -> Draw:
    """The draw of one micro-batch of training, on the host.

    `grid` is the latent (frames, height, width), all samples alike; `audio_tokens` the audio latents, `channels` those
    of video and audio. Levels are independent per modality and sample. With `first_frame_probability` a sample's latent
    frame 0 is clean; never where there is only one frame, since nothing would be left to learn.
    """
    frames, height, width = grid
    tokens = frames * height * width
    names = [(use.sample.id, use.position) for use in uses]
    clean = torch.zeros(len(names), tokens, dtype=torch.bool)
    video_sigma, audio_sigma = [], []
    for row, (sample, position) in enumerate(names):
        video_sigma.append(_level(generator(seed, step, sample, position, "video sigma"), tokens, static_shift))
        audio_sigma.append(_level(generator(seed, step, sample, position, "audio sigma"), audio_tokens, static_shift))
        chosen = generator(seed, step, sample, position, "first frame").random() < first_frame_probability
        clean[row, : height * width] = bool(chosen and frames > 1)
    video_noise, audio_noise = _noise(seed, step, names, tokens, audio_tokens, channels)
    return Draw(video_noise, audio_noise, torch.tensor(video_sigma), torch.tensor(audio_sigma), clean)


def held_out_draw(
    seed: int,
    sample: str,
    grid: tuple[int, int, int],
    audio_tokens: int,
    level: float,
    *,
    channels: tuple[int, int] = (128, 128),
) -> Draw:
    """The draw of one held-out measurement of one sample: fixed noise, `level` for both modalities, nothing clean."""
    tokens = math.prod(grid)
    video_noise, audio_noise = _noise(seed, HELD_OUT, [(sample, 0)], tokens, audio_tokens, channels)
    sigma = torch.tensor([level])
    return Draw(video_noise, audio_noise, sigma, sigma.clone(), torch.zeros(1, tokens, dtype=torch.bool))


def _level(source: np.random.Generator, tokens: int, static_shift: float | None) -> float:
    normal, uniform, switch = source.standard_normal(), source.random(), source.random()
    if static_shift is not None:
        return static_sigma_of(normal, static_shift)
    return sigma_of(normal, uniform, switch, shift_of(tokens))


def _noise(
    seed: int, step: int | str, names: Sequence[tuple[str, int]], video: int, audio: int, channels: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    def rows(role: str, *shape: int) -> Tensor:
        sources = (generator(seed, step, sample, position, role) for sample, position in names)
        return torch.stack([torch.from_numpy(source.standard_normal(shape, dtype=np.float32)) for source in sources])

    return rows("video noise", video, channels[0]), rows("audio noise", audio, channels[1])


def _sigmoid(value: float) -> float:
    return 1.0 / (1.0 + math.exp(-value))


def _move(tensor: Tensor, device: torch.device) -> Tensor:
    return tensor.to(device, non_blocking=True)
