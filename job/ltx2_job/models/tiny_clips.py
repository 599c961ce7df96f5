"""Smooth synthetic clips and sounds, made by formula: what the tiny model's latent statistics are calibrated on."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from ltx2_job.models.mel import SAMPLE_RATE, log_mel

_FRAMES, _HEIGHT, _WIDTH = 17, 64, 96
_SECONDS = 1.0


def clips() -> Iterator[Tensor]:
    """Eight clips [3, 17, 64, 96] in [-1, 1]: a soft disc moving over a tinted gradient with gentle stripes."""
    time, y, x = torch.meshgrid(
        torch.linspace(0, 1, _FRAMES), torch.linspace(0, 1, _HEIGHT), torch.linspace(0, 1.5, _WIDTH), indexing="ij"
    )
    for index in range(8):
        phase = index * 0.7
        colour = torch.tensor([math.sin(phase + shift) for shift in (0.0, 2.1, 4.2)])
        gradient = 0.6 * (y * math.cos(phase) + x * math.sin(phase)) - 0.3
        stripes = 0.15 * torch.sin(2 * math.pi * ((2 + index) * x + (index % 3) * y + 0.5 * time))
        centre_x, centre_y = 0.75 + 0.5 * torch.cos(3 * time + phase), 0.5 + 0.3 * torch.sin(4 * time + phase)
        distance = torch.sqrt((x - centre_x) ** 2 + (y - centre_y) ** 2)
        disc = torch.sigmoid((0.15 + 0.02 * index - distance) * 40)
        background = gradient + stripes + 0.5 * colour[:, None, None, None]
        yield (background * (1 - disc) - disc * colour[:, None, None, None]).clamp(-1, 1)


def mels() -> Iterator[Tensor]:
    """Log-mels [2, 101, 64] of six sounds of one second: rising tones with overtones, swelling, over a soft hum."""
    time = torch.arange(int(SAMPLE_RATE * _SECONDS), dtype=torch.float64) / SAMPLE_RATE
    for index in range(6):
        pitch = 110 * 2 ** (index / 2)
        angle = 2 * math.pi * pitch * (time + 0.3 * time**2)
        tone = sum(torch.sin(angle * overtone) / overtone for overtone in (1, 2, 3, 5))
        swell = 0.5 - 0.5 * torch.cos(2 * math.pi * (1 + index) * time)
        hum = 0.01 * torch.sin(2 * math.pi * 60 * time)
        left = 0.3 * swell * tone + hum
        yield log_mel(torch.stack([left, 0.7 * left.flip(0) + hum]).float())
