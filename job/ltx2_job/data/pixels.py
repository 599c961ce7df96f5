"""From decoded frames to what the video VAE takes: resized, cut, in [-1, 1]."""

from collections.abc import Iterable
from fractions import Fraction

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import interpolate

from ltx2_job.data.sizes import cover


def prepare(
    frames: Iterable[NDArray[np.uint8]],
    count: int,
    aspect: Fraction,
    target: tuple[int, int],
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    """[3, count, height, width] in [-1, 1] from `count` frames, uint8 [h, w, 3] in full range (design N5).

    Each frame is resized with torch's antialiased bicubic filter on float, clamped to the range of pixels (bicubic
    overshoots at edges), and cut at the centre. `aspect` is the width of a source pixel / its height; `target` is
    (width, height). Frames are taken one at a time, so only the result lies in memory as a whole.
    """
    width, height = target
    result = torch.empty((3, count, height, width), dtype=dtype)
    for index, frame in enumerate(frames):
        rows, columns = frame.shape[:2]
        wide, high, left, top = cover(columns * aspect, rows, target)
        image = torch.from_numpy(frame.copy()).permute(2, 0, 1)[None].float()
        if (high, wide) != (rows, columns):
            image = interpolate(image, size=(high, wide), mode="bicubic", align_corners=False, antialias=True)
        cut = image[0, :, top : top + height, left : left + width].clamp(0, 255)
        result[:, index] = cut / 127.5 - 1
    return result
