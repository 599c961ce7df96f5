"""Learning rates as closed formulas of (step, peak, total, warm-up), in float64 numpy."""

import numpy as np


def rates(name: str, peak: float, total: int, warmup: int, end: float, power: float, cycles: int) -> np.ndarray:
    """The rate of every step 0 .. total - 1."""
    k = np.arange(total, dtype=np.float64)
    p = (k - warmup) / max(1, total - warmup)
    after = {
        "constant": peak + 0 * p,
        "constant_with_warmup": peak + 0 * p,
        "linear": peak * (1 - p),
        "cosine": peak * np.cos(np.pi * p / 2) ** 2,
        "cosine_with_restarts": peak * np.cos(np.pi * (cycles * p - np.floor(cycles * p)) / 2) ** 2,
        "sine": peak * np.cos(np.pi * cycles * p) ** 2,
        "polynomial": min(end, peak) + (peak - min(end, peak)) * np.maximum(1 - p, 0) ** power,
    }[name]
    if name == "constant" or warmup == 0:
        return after
    return np.where(k < warmup, peak * k / warmup, after)
