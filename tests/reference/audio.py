"""Independent reference of the audio front end in float64: the formulas, sample by sample, with no polyphase tricks."""

import math

import numpy as np

# Shares of the loudspeakers in the left and right channel, before rows are divided by their sum.
ROWS = {
    "mono": ([1], [1]),
    "stereo": ([1, 0], [0, 1]),
    # FL FR FC LFE BL BR
    "5.1": ([1, 0, math.sqrt(0.5), 0, math.sqrt(0.5), 0], [0, 1, math.sqrt(0.5), 0, 0, math.sqrt(0.5)]),
    # FL FR FC LFE BL BR SL SR
    "7.1": (
        [1, 0, math.sqrt(0.5), 0, math.sqrt(0.5), 0, math.sqrt(0.5), 0],
        [0, 1, math.sqrt(0.5), 0, 0, math.sqrt(0.5), 0, math.sqrt(0.5)],
    ),
}


def downmix(wave: np.ndarray, layout: str, *, normalise: bool = True) -> np.ndarray:
    """[C, S] -> [2, S]."""
    result = []
    for row in ROWS[layout]:
        total = sum(row) if normalise else 1
        result.append(sum(share * channel for share, channel in zip(row, wave.astype(np.float64), strict=True)) / total)
    return np.stack(result)


def resample(wave: np.ndarray, rate: int, target: int, *, width: int = 6, roll_off: float = 0.99) -> np.ndarray:
    """[S] -> [ceil(S * target / rate)]: y(m) = sum over n of x(n) h(n/rate - m/target), one output at a time."""
    cut = roll_off * min(rate, target)
    result = np.zeros(math.ceil(len(wave) * target / rate))
    for m in range(len(result)):
        centre = m * rate / target
        reach = width * rate / cut
        for n in range(max(0, math.floor(centre - reach)), min(len(wave), math.ceil(centre + reach) + 1)):
            t = (n - centre) * cut / rate  # in zero crossings
            if abs(t) >= width:
                continue
            sinc = 1.0 if t == 0 else math.sin(math.pi * t) / (math.pi * t)
            result[m] += float(wave[n]) * sinc * math.cos(math.pi * t / (2 * width)) ** 2 * cut / rate
    return result


def decibel(ratio: float) -> float:
    """20 log10."""
    return 20 * math.log10(ratio)


def rms(wave: np.ndarray) -> float:
    """Root of the mean square."""
    return float(np.sqrt(np.mean(wave.astype(np.float64) ** 2)))
