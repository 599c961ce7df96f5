"""The log-mel spectrogram that LTX-2's audio VAE was trained on.

Short-time Fourier transform of 1,024 samples every 160 (10 ms at 16 kHz), periodic Hann window, centred with reflected
edges, magnitude; 64 triangular bands from 0 to 8 kHz on Slaney's mel scale, each of unit area (Slaney's norm); natural
logarithm of at least 1e-5. Scale and norm: M. Slaney, Auditory Toolbox, 1998. The bank is made here in twenty lines:
taking it from a library would add that library's import to the start of every job.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

SAMPLE_RATE = 16_000
"""Samples per second that `log_mel` wants."""
WINDOW = 1024
HOP = 160
BANDS = 64
FLOOR = 1e-5

_LINEAR_HZ_PER_MEL = 200 / 3
_LOG_FROM_HZ = 1000.0
_LOG_FROM_MEL = _LOG_FROM_HZ / _LINEAR_HZ_PER_MEL
_LOG_STEP = math.log(6.4) / 27


def log_mel(wave: Tensor) -> Tensor:
    """Log-mel spectrogram of a wave at 16 kHz: [..., channels, S] -> [..., channels, S // 160 + 1, 64], in its dtype.

    wave: float32 or float64. Raises ValueError when it is shorter than the 513 samples that reflected edges need.
    """
    samples = wave.shape[-1]
    if samples <= WINDOW // 2:
        raise ValueError(f"a spectrogram needs more than {WINDOW // 2} samples at {SAMPLE_RATE} Hz, got {samples}")
    window = torch.hann_window(WINDOW, dtype=wave.dtype, device=wave.device)
    spectrum = torch.stft(
        wave.reshape(-1, samples), WINDOW, HOP, window=window, center=True, pad_mode="reflect", return_complex=True
    )
    bands = spectrum.abs().transpose(-1, -2) @ mel_bank().to(wave)
    return bands.clamp(min=FLOOR).log().reshape(*wave.shape[:-1], -1, BANDS)


@functools.cache
def mel_bank() -> Tensor:
    """The triangular filters: float64 [513, 64], from the magnitude at each frequency to each band."""
    frequencies = torch.linspace(0, SAMPLE_RATE / 2, WINDOW // 2 + 1, dtype=torch.float64)[:, None]
    mels = torch.linspace(0, _mel(SAMPLE_RATE / 2), BANDS + 2, dtype=torch.float64)
    corners = _hertz(mels)
    low, middle, high = corners[:-2], corners[1:-1], corners[2:]
    rising = (frequencies - low) / (middle - low)
    falling = (high - frequencies) / (high - middle)
    return torch.minimum(rising, falling).clamp(min=0) * band_norm(low, high)


def band_norm(low: Tensor, high: Tensor) -> Tensor:
    """Slaney's norm: the factor that gives a triangle between two frequencies (Hz) the area 1."""
    return 2 / (high - low)


def _mel(hertz: float) -> float:
    """Slaney's mel of a frequency of at least 1 kHz: logarithmic above that, linear below."""
    return _LOG_FROM_MEL + math.log(hertz / _LOG_FROM_HZ) / _LOG_STEP


def _hertz(mels: Tensor) -> Tensor:
    """Frequencies of Slaney mels."""
    logarithmic = _LOG_FROM_HZ * torch.exp(_LOG_STEP * (mels - _LOG_FROM_MEL))
    return torch.where(mels < _LOG_FROM_MEL, mels * _LINEAR_HZ_PER_MEL, logarithmic)
