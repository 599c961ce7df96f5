"""Positions and rotary tables of LTX-2 in numpy, one token at a time, written from the published description.

Rounding to single precision is part of the description: frequencies are made in double precision and then rounded, and
positions and angles are single precision. Sines and cosines of those angles are exact here (double).
"""

import numpy as np

SINGLE = np.float32


def video_spans(grid, fps, scale=(8, 32, 32)):
    """Start and end of each token on the axes time (s), y (px), x (px): float32 [tokens, 3, 2]."""
    spans = []
    for f in range(grid[0]):
        start, end = max(0, scale[0] * f - (scale[0] - 1)), scale[0] * f + 1
        time = SINGLE(start) / SINGLE(fps), SINGLE(end) / SINGLE(fps)
        for y in range(grid[1]):
            for x in range(grid[2]):
                spans.append((time, (scale[1] * y, scale[1] * (y + 1)), (scale[2] * x, scale[2] * (x + 1))))
    return np.array(spans, SINGLE)


def audio_spans(latents, scale=4, hop=160, rate=16000):
    """Start and end of each audio token in seconds: float32 [tokens, 1, 2]."""
    frames = [(max(0, scale * i - (scale - 1)), scale * i + 1) for i in range(latents)]
    return np.array([[[SINGLE(edge) * SINGLE(hop) / SINGLE(rate) for edge in span]] for span in frames], SINGLE)


def angles(spans, extent, width, theta=10000.0):
    """Angle of each token and channel pair: [tokens, width / 2]; pairs that no frequency is left for are not turned."""
    axes = len(extent)
    steps = width // (2 * axes)
    exponents = np.array([step / (steps - 1) for step in range(steps)], np.float64)
    frequencies = (theta**exponents * np.pi / 2).astype(SINGLE)
    out = np.zeros((len(spans), width // 2))
    spare = width // 2 - steps * axes
    for token, span in enumerate(spans):
        for axis in range(axes):
            middle = (span[axis, 0] + span[axis, 1]) / SINGLE(2)
            fraction = middle / SINGLE(extent[axis]) * SINGLE(2) - SINGLE(1)
            out[token, spare + axis :: axes] = fraction * frequencies
    return out


def turn(x, angle, heads):
    """x [tokens, width] rotated by angle [tokens, width / 2]: within each head, pairs (j, j + half)."""
    out = np.empty_like(x)
    size = x.shape[1] // heads
    half = size // 2
    for head in range(heads):
        first, second = x[:, head * size : head * size + half], x[:, head * size + half : (head + 1) * size]
        a = angle[:, head * half : (head + 1) * half]
        out[:, head * size : head * size + half] = first * np.cos(a) - second * np.sin(a)
        out[:, head * size + half : (head + 1) * size] = second * np.cos(a) + first * np.sin(a)
    return out
