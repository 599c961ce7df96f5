"""Frames on 8k + 1, sizes on 32, and how frames are taken from a file."""

import math
from dataclasses import dataclass, replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ltx2_job.data.decoder import Probe, Unusable
from ltx2_job.data.sizes import (
    audio_latents,
    clip_frames,
    cover,
    on_frame_grid,
    on_grid,
    timing,
    training_size,
)

HD = Probe(1280, 720, Fraction(1), 132, Fraction(25), True, Fraction(132, 25), Fraction(0), True)


@dataclass(frozen=True)
class Options:
    num_frames: int = 49
    min_frames: int = 49
    max_frames: int | None = None
    frame_rate: float | None = None


@pytest.mark.parametrize(
    ("edge", "grid"), [(720, 704), (854, 864), (480, 480), (1080, 1088), (16, 32), (1, 32), (721, 736)]
)
def test_sizes_are_multiples_of_32_nearest_with_ties_down(edge: int, grid: int) -> None:
    assert on_grid(edge) == grid


@pytest.mark.parametrize(("frames", "grid"), [(0, 0), (1, 1), (8, 1), (9, 9), (48, 41), (61, 57), (62, 57), (81, 81)])
def test_frames_round_down(frames: int, grid: int) -> None:
    assert on_frame_grid(frames) == grid


@pytest.mark.parametrize(
    ("width", "height", "resolution", "kind", "size"),
    [
        # edge 480, aspect 1.78: 480 * 1.3342 = 640.4, 480 / 1.3342 = 359.8
        (1280, 720, 480, "pixel_area", (640, 352)),
        (720, 1280, 480, "pixel_area", (352, 640)),
        (1000, 1000, 480, "pixel_area", (480, 480)),
        (1002, 1000, 480, "pixel_area", (480, 480)),  # an aspect of 1.00 after rounding is a square
        (640, 272, 480, "pixel_area", (736, 320)),  # aspect 2.35
        (1280, 720, 0.25, "area", (672, 384)),  # half a thousand pixels squared: edge 500 -> 512
        (1280, 720, 480, "pixel", (864, 480)),  # 480 * 1.78 = 854.4
        (720, 1280, 480, "pixel", (480, 864)),
        (4000, 40, 64, "pixel_area", (640, 32)),
    ],
)
def test_training_sizes(width: int, height: int, resolution: float, kind: str, size: tuple[int, int]) -> None:
    assert training_size(replace(HD, width=width, height=height), resolution, kind) == size


def test_the_shape_of_pixels_counts() -> None:
    stored = replace(HD, width=720, height=576, aspect=Fraction(64, 45))  # PAL wide screen, displayed as 1024 x 576
    assert training_size(stored, 480, "pixel_area") == training_size(HD, 480, "pixel_area")


@given(st.integers(16, 8000), st.integers(16, 8000), st.integers(32, 2000))
def test_the_area_is_about_what_was_asked_for(width: int, height: int, resolution: int) -> None:
    size = training_size(replace(HD, width=width, height=height), resolution, "pixel_area")
    edge, aspect = on_grid(resolution), max(0.01, round(width / height, 2))
    for got, want in zip(size, (edge * math.sqrt(aspect), edge / math.sqrt(aspect)), strict=True):
        assert got % 32 == 0 and (abs(got - want) <= 16 + 1e-6 or got == 32)


@given(st.integers(1, 4000), st.integers(1, 4000), st.integers(1, 60), st.integers(1, 60))
def test_covering_leaves_no_gap_and_cuts_one_direction_only(width: int, height: int, columns: int, rows: int) -> None:
    target = (32 * columns, 32 * rows)
    wide, high, left, top = cover(width, height, target)
    assert wide >= target[0] and high >= target[1]
    assert (wide, high)[0] == target[0] or (wide, high)[1] == target[1]
    assert 0 <= left <= wide - target[0] <= 2 * left + 1
    assert 0 <= top <= high - target[1] <= 2 * top + 1
    assert abs(wide / high - width / height) <= 1.01 * max(1 / high, wide / high**2, width / height / high * 1.01)


def test_own_rate_takes_frames_as_they_are() -> None:
    timed = timing(HD, None)
    assert (timed.available, timed.rate, timed.as_they_are, timed.whole) == (132, 25, True, True)


@pytest.mark.parametrize(
    ("own", "wanted", "available", "whole"),
    [(50, 25, 66, True), (25, 50, 264, False), (30, 25, 110, False), (Fraction(30000, 1001), 30.0, 132, True),
     (75, 25.0, 44, True)],
)  # fmt: skip
def test_another_rate(own: Fraction, wanted: float, available: int, whole: bool) -> None:
    timed = timing(replace(HD, rate=Fraction(own), seconds=132 / Fraction(own)), wanted)
    assert (timed.available, timed.rate, timed.as_they_are, timed.whole) == (available, wanted, False, whole)


def test_the_wanted_rate_that_a_file_has_changes_nothing() -> None:
    assert timing(HD, 25.0) == timing(HD, None)


def test_uneven_frames_are_taken_by_their_times() -> None:
    timed = timing(replace(HD, regular=False), None)
    assert (timed.rate, timed.as_they_are, timed.whole) == (25, False, True)


@pytest.mark.parametrize(("available", "frames"), [(49, 49), (56, 49), (132, 49), (500, 49)])
def test_long_clips_give_their_first_frames(available: int, frames: int) -> None:
    assert clip_frames(available, Fraction(25), Options()) == frames


def test_shorter_clips_down_to_min_frames_give_what_they_have() -> None:
    assert clip_frames(40, Fraction(25), Options(min_frames=17)) == 33


def test_too_short_and_too_long_clips_are_told_with_their_numbers() -> None:
    with pytest.raises(Unusable, match=r"^31 frames at 25 fps, min_frames is 57$"):
        clip_frames(31, Fraction(25), Options(min_frames=57))
    with pytest.raises(Unusable, match=r"^1 frame at 29.97 fps, min_frames is 49$"):
        clip_frames(1, Fraction(30000, 1001), Options())
    with pytest.raises(Unusable, match=r"^132 frames at 25 fps, max_frames is 121$"):
        clip_frames(132, Fraction(25), Options(max_frames=121))
    assert clip_frames(128, Fraction(25), Options(max_frames=121)) == 49  # 128 is 121 on the grid


@pytest.mark.parametrize(
    ("frames", "rate", "latents"),
    [(49, 25, 49), (25, 24, 26), (121, 24, 126), (17, Fraction(30000, 1001), 14), (1, 25, 1), (25, 30, 21), (9, 50, 4)],
)
def test_audio_latents(frames: int, rate: Fraction, latents: int) -> None:
    """The nearest whole number, 4.5 to the even one as in the official code. Catches: cutting off the fraction."""
    assert audio_latents(frames, Fraction(rate)) == latents
