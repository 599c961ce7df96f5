"""Log-mel spectrogram in numpy (double precision), by the discrete Fourier sum over one frame at a time."""

import numpy as np

RATE, WINDOW, HOP, BANDS = 16000, 1024, 160, 64


def hertz_to_mel(hertz):
    """Slaney: 3 mels per 200 Hz up to 1 kHz, then 27 mels for each factor of 6.4."""
    return 3 * hertz / 200 if hertz < 1000 else 15 + 27 * np.log(hertz / 1000) / np.log(6.4)


def mel_to_hertz(mel):
    return 200 * mel / 3 if mel < 15 else 1000 * 6.4 ** ((mel - 15) / 27)


def bank(unit_area=True):
    """[513, 64]: triangles between neighbouring mels, 0 to 8 kHz; with `unit_area` each has the area 1."""
    corners = [mel_to_hertz(mel) for mel in np.linspace(0, hertz_to_mel(RATE / 2), BANDS + 2)]
    out = np.zeros((WINDOW // 2 + 1, BANDS))
    for band, (low, top, high) in enumerate(zip(corners, corners[1:], corners[2:], strict=False)):
        for line in range(WINDOW // 2 + 1):
            hertz = line * RATE / WINDOW
            if low < hertz < high:
                height = (hertz - low) / (top - low) if hertz <= top else (high - hertz) / (high - top)
                out[line, band] = height * (2 / (high - low) if unit_area else 1)
    return out


def log_mel(wave, unit_area=True):
    """wave [S] -> [S // 160 + 1, 64]."""
    samples = np.arange(WINDOW)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * samples / WINDOW)  # periodic: the last sample is not 0 again
    fourier = np.exp(-2j * np.pi * np.outer(samples, np.arange(WINDOW // 2 + 1)) / WINDOW)
    padded = np.pad(np.asarray(wave, np.float64), WINDOW // 2, mode="reflect")
    frames = [padded[start : start + WINDOW] * window for start in range(0, len(wave) + 1, HOP)]
    return np.log(np.maximum(np.abs(np.array(frames) @ fourier) @ bank(unit_area), 1e-5))
