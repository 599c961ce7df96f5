"""From frames to the VAE's input."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from ltx2_job.data.pixels import prepare

SQUARE = Fraction(1)


def one(frame: np.ndarray, target: tuple[int, int], aspect: Fraction = SQUARE) -> np.ndarray:
    """The single frame, [height, width, 3]."""
    return prepare([frame], 1, aspect, target)[:, 0].permute(1, 2, 0).double().numpy()


def cubic(x: float, a: float = -0.5) -> float:
    """Keys' cubic convolution kernel; -0.5 is what antialiased resizing uses."""
    x = abs(x)
    if x < 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def resized(line: np.ndarray, length: int) -> np.ndarray:
    """Antialiased cubic resizing of a line [S]: the kernel is stretched over the source pixels of one target pixel."""
    scale = len(line) / length
    stretch = max(1.0, scale)
    result = np.zeros(length)
    for i in range(length):
        centre = (i + 0.5) * scale
        weights = np.array([cubic((j + 0.5 - centre) / stretch) for j in range(len(line))])
        result[i] = (weights / weights.sum() * line).sum()
    return result


def test_black_is_minus_one_and_white_is_one() -> None:
    # Pixels in [0, 1] would wash out every picture.
    assert np.all(one(np.zeros((64, 64, 3), np.uint8), (64, 64)) == -1)
    assert np.all(one(np.full((64, 64, 3), 255, np.uint8), (64, 64)) == 1)


def test_a_frame_of_the_right_size_is_not_touched() -> None:
    frame = np.random.default_rng(1).integers(0, 256, (32, 64, 3), np.uint8)
    assert np.abs((one(frame, (64, 32)) + 1) * 127.5 - frame).max() < 1e-4


def test_resizing_is_antialiased_cubic_convolution() -> None:
    line = np.random.default_rng(2).integers(60, 196, 160)
    frame = np.broadcast_to(line[None, :, None], (80, 160, 3)).astype(np.uint8).copy()
    got = (one(frame, (64, 32)) + 1) * 127.5
    assert np.abs(got[16, :, 0] - resized(line.astype(float), 64)).max() < 0.05


def test_overshoot_is_clamped() -> None:
    frame = np.zeros((32, 32, 3), np.uint8)
    frame[:, 16:] = 255
    got = one(frame, (96, 96))
    assert got.min() == -1 and got.max() == 1


@pytest.mark.parametrize(("target", "inside"), [((64, 64), (64, 192)), ((32, 64), (96, 160))])
def test_the_cut_is_at_the_centre(target: tuple[int, int], inside: tuple[int, int]) -> None:
    frame = np.zeros((128, 256, 3), np.uint8)
    frame[:, inside[0] : inside[1]] = 255
    got = one(frame, target)
    assert got[:, 2:-2].min() > 0.99  # the cut holds exactly the white middle
    frame[:, : inside[0]], frame[:, inside[1] :] = 255, 255
    frame[:, inside[0] : inside[1]] = 0
    assert one(frame, target)[:, 2:-2].max() < -0.99


def test_wide_pixels_are_stretched_not_cut() -> None:
    # 64 x 64 stored, displayed as 128 x 64: nothing is lost at the sides.
    frame = np.zeros((64, 64, 3), np.uint8)
    frame[:, :32] = 255
    got = one(frame, (128, 64), Fraction(2))
    assert got[:, :60].min() > 0.99 and got[:, 68:].max() < -0.99


def test_frames_keep_their_order_and_take_the_dtype() -> None:
    frames = [np.full((32, 32, 3), value, np.uint8) for value in (0, 51, 255)]
    got = prepare(iter(frames), 3, SQUARE, (32, 32), torch.bfloat16)
    assert got.shape == (3, 3, 32, 32) and got.dtype == torch.bfloat16
    assert got[0, :, 5, 5].tolist() == pytest.approx([-1, -0.6, 1], abs=0.004)
