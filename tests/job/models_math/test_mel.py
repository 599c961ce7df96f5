"""The log-mel front end against the plain Fourier sum of the reference."""

import numpy as np
import pytest
import torch

from ltx2_job.models import mel
from reference import mel as reference


def _wave(samples=4321, seed=3):
    """Two channels: a rising tone and noise, and near silence."""
    random = np.random.default_rng(seed)
    time = np.arange(samples) / 16000
    tone = 0.3 * np.sin(2 * np.pi * (200 + 9000 * time) * time) + 0.01 * random.standard_normal(samples)
    return np.stack([tone, 1e-6 * random.standard_normal(samples)])


def test_log_mel_equals_the_fourier_sum():
    wave = _wave()
    wanted = np.stack([reference.log_mel(channel) for channel in wave])
    double = mel.log_mel(torch.from_numpy(wave))
    assert double.shape == (2, 4321 // 160 + 1, 64)
    np.testing.assert_allclose(double.numpy(), wanted, atol=1e-9)
    single = mel.log_mel(torch.from_numpy(wave).float())
    np.testing.assert_allclose(single.numpy(), wanted, atol=2e-3)
    assert np.abs(single.numpy() - wanted)[wanted > -9].mean() < 1e-5


def test_batches_and_the_floor():
    wave = torch.from_numpy(_wave()).float()
    batch = mel.log_mel(torch.stack([wave, wave.flip(0), torch.zeros_like(wave)]))
    assert batch.shape == (3, 2, 28, 64)
    torch.testing.assert_close(batch[1], batch[0].flip(0))
    # Digital silence is the logarithm of the floor.
    torch.testing.assert_close(batch[2], torch.full_like(batch[2], float(np.log(1e-5))))


def test_a_wave_too_short_for_reflected_edges_is_refused():
    with pytest.raises(ValueError, match="more than 512 samples"):
        mel.log_mel(torch.zeros(2, 512))
    assert mel.log_mel(torch.zeros(2, 513)).shape == (2, 4, 64)


def test_the_bank():
    np.testing.assert_allclose(mel.mel_bank().numpy(), reference.bank(), atol=1e-15)


def test_the_comparison_catches_a_missing_norm(monkeypatch):
    """Mutation: triangles of height 1 instead of area 1. Then another reference fits, and ours does not."""
    monkeypatch.setattr(mel, "band_norm", lambda low, high: torch.ones_like(low))
    mel.mel_bank.cache_clear()
    try:
        wave = _wave()[0]
        mutated = mel.log_mel(torch.from_numpy(wave)[None])[0].numpy()
        np.testing.assert_allclose(mutated, reference.log_mel(wave, unit_area=False), atol=1e-9)
        assert np.abs(mutated - reference.log_mel(wave)).max() > 1
    finally:
        mel.mel_bank.cache_clear()
