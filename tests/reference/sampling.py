"""The official sampling of LTX-2 in float64 numpy, written from the formulas: schedule, guidance, Euler.

Independent of the product: nothing of it is imported here.
"""

import itertools
from collections.abc import Callable, Sequence

import numpy as np


def schedule(steps: int, mu: float = 2.05, terminal: float = 0.1) -> np.ndarray:
    """steps + 1 noise levels: linear from 1 to 0, shifted, the last non-zero one stretched to `terminal`."""
    linear = np.linspace(1.0, 0.0, steps + 1)
    levels = np.zeros(steps + 1)
    positive = linear > 0
    levels[positive] = np.exp(mu) / (np.exp(mu) + (1.0 / linear[positive] - 1.0))
    if steps > 1:
        distance = 1.0 - levels[positive]
        levels[positive] = 1.0 - distance * (1.0 - terminal) / distance[-1]
    return levels


def guided(
    x: np.ndarray,
    negative: np.ndarray,
    skipped: np.ndarray,
    isolated: np.ndarray,
    cfg: float,
    stg: float,
    modality: float,
    rescale: float,
) -> np.ndarray:
    """Guidance on predicted clean latents of one sample, all four terms, then the contrast taken back."""
    total = x + (cfg - 1) * (x - negative) + stg * (x - skipped) + (modality - 1) * (x - isolated)
    return total * (rescale * x.std(ddof=1) / total.std(ddof=1) + (1 - rescale))


def euler(
    noise: Sequence[np.ndarray],
    levels: np.ndarray,
    predict: Callable[[Sequence[np.ndarray], float], Sequence[np.ndarray]],
) -> list[np.ndarray]:
    """Each modality from noise to data: x += (next level - level) * v, with v = (x - x0) / level."""
    current = [np.asarray(each, dtype=np.float64) for each in noise]
    for level, following in itertools.pairwise(levels):
        clean = predict(current, level)
        velocity = [(x - x0) / level for x, x0 in zip(current, clean, strict=True)]
        current = [x + (following - level) * v for x, v in zip(current, velocity, strict=True)]
    return current
