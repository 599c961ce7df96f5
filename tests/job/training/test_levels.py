"""Noise levels of a draw, one by one: from which variates, in which order, with whose number of tokens."""

from dataclasses import dataclass

import pytest

from ltx2_job.training.draw import draw, generator
from reference import sigma as reference


@dataclass(frozen=True)
class Name:
    id: str


@dataclass(frozen=True)
class Use:
    sample: Name
    position: int


@pytest.mark.parametrize(("grid", "audio"), [((1, 2, 2), 6000), ((8, 20, 30), 3)])
def test_every_level_is_the_reference_of_its_own_tokens(grid: tuple[int, int, int], audio: int) -> None:
    """Normal, uniform value, uniform switch, in this order. Catches: the audio's shift from the video's tokens (which
    differ little in short clips, so that a test of the distribution does not see it), or from tokens of the batch."""
    uses = [Use(Name(f"clip {index}"), index) for index in range(60)]
    drawn = draw(7, 3, uses, grid, audio, first_frame_probability=0.0, channels=(1, 1))
    tokens = {"video sigma": grid[0] * grid[1] * grid[2], "audio sigma": audio}
    for (role, count), levels in zip(tokens.items(), (drawn.video_sigma, drawn.audio_sigma), strict=True):
        for use, level in zip(uses, levels, strict=True):
            source = generator(7, 3, use.sample.id, use.position, role)
            variates = source.standard_normal(), source.random(), source.random()
            assert level.item() == pytest.approx(float(reference.official_sigma(*variates, count)), abs=1e-6)
