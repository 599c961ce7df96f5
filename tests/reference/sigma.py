"""Noise levels in float64 numpy, written from the formulas of the official trainer alone."""

import numpy as np


def official_shift(tokens: float) -> float:
    """The straight line through (1024 tokens, 0.95) and (4096 tokens, 2.05)."""
    slope = (2.05 - 0.95) / (4096 - 1024)
    return slope * tokens + (0.95 - slope * 1024)


def official_sigma(normal: np.ndarray, uniform: np.ndarray, switch: np.ndarray, tokens: float) -> np.ndarray:
    """Shifted logit-normal, stretched between its 0.5 % and 99.9 % quantiles, mirrored below 1e-3, 10 % uniform."""
    mu = official_shift(tokens)
    logistic = lambda x: np.exp(x) / (1 + np.exp(x))  # noqa: E731
    y = logistic(np.asarray(normal, np.float64) + mu)
    low, high = logistic(mu - 2.5758), logistic(mu + 3.0902)
    r = (y - low) / (high - low)
    r = np.where(r < 1e-3, 2e-3 - r, r)
    r = np.clip(r, 0.0, 1.0)
    return np.where(np.asarray(switch) < 0.1, 1e-3 + (1 - 1e-3) * np.asarray(uniform), r)


def static_sigma(normal: np.ndarray, shift: float) -> np.ndarray:
    """sigma = s x / (1 + (s - 1) x) of a plain logit-normal x."""
    x = 1 / (1 + np.exp(-np.asarray(normal, np.float64)))
    return shift * x / (1 + (shift - 1) * x)
