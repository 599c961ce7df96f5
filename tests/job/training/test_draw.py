"""Noise, levels and clean masks: their values, their distribution, and what they must not depend on."""

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from ltx2_job.training.draw import Draw, draw, generator, held_out_draw, shift_of, sigma_of, static_sigma_of
from reference import sigma as reference


@dataclass(frozen=True)
class Name:
    id: str


@dataclass(frozen=True)
class Use:
    sample: Name
    position: int = 0


def uses(*names: str) -> list[Use]:
    return [Use(Name(name), position) for position, name in enumerate(names)]


def of(
    names: list[Use], step: int = 3, seed: int = 7, grid=(2, 2, 2), audio: int = 5, p: float = 0.5, **more: Any
) -> Draw:
    return draw(seed, step, names, grid, audio, first_frame_probability=p, **more)


def equal(a: Draw, b: Draw, row: int | slice = slice(None)) -> bool:
    return all(torch.equal(x[row], y[row]) for x, y in zip(vars(a).values(), vars(b).values(), strict=True))


@pytest.mark.parametrize("tokens", [9, 64, 1024, 4096, 9000])
def test_levels_equal_the_reference_for_the_same_variates(tokens: int) -> None:
    """Catches: mu clamped, another quantile, mirror or uniform share left out."""
    source = np.random.default_rng(tokens)
    normal, uniform, switch = source.standard_normal(4000), source.random(4000), source.random(4000)
    normal[:40] = np.linspace(-6, 6, 40)  # both ends: mirrored, and clamped at 1
    ours = [sigma_of(*row, shift_of(tokens)) for row in zip(normal, uniform, switch, strict=True)]
    np.testing.assert_allclose(ours, reference.official_sigma(normal, uniform, switch, tokens), rtol=1e-12, atol=1e-15)


def test_the_shift_is_the_official_line() -> None:
    assert shift_of(64) == pytest.approx(0.606, abs=5e-4)
    assert shift_of(9000) == pytest.approx(3.81, abs=5e-3)
    assert shift_of(4096) == pytest.approx(2.05)


@pytest.mark.parametrize("shift", [1.0, 3.0, 5.0])
def test_a_static_shift_is_the_formula_of_its_key(shift: float) -> None:
    normal = np.random.default_rng(1).standard_normal(500)
    ours = [static_sigma_of(value, shift) for value in normal]
    np.testing.assert_allclose(ours, reference.static_sigma(normal, shift), rtol=1e-12)


@functools.cache
def levels(static: float | None = None) -> tuple[np.ndarray, np.ndarray]:
    """4,000 draws; one noise channel is enough to look at the levels."""
    more = {"grid": (4, 8, 8), "audio": 50, "static_shift": static, "channels": (1, 1)}
    drawn = [of([Use(Name(f"clip {i}"))], step=i, **more) for i in range(4000)]
    return np.array([d.video_sigma.item() for d in drawn]), np.array([d.audio_sigma.item() for d in drawn])


def test_drawn_levels_have_the_distribution_of_the_reference() -> None:
    """Quantiles of 4,000 draws against 400,000 of the reference, each modality with its own token count."""
    source = np.random.default_rng(0)
    variates = source.standard_normal(400_000), source.random(400_000), source.random(400_000)
    at = np.linspace(0.02, 0.98, 25)
    video, audio = levels()
    for drawn, tokens in ((video, 256), (audio, 50)):
        expected = reference.official_sigma(*variates, tokens)
        assert np.abs(np.quantile(drawn, at) - np.quantile(expected, at)).max() < 0.03
    assert drawn.min() > 0 and drawn.max() <= 1


def test_the_modalities_have_independent_levels() -> None:
    """Catches the mutation "one sigma for both": correlation 1 instead of about 0."""
    video, audio = levels()
    assert abs(np.corrcoef(video, audio)[0, 1]) < 0.05
    video, audio = levels(static=3.0)
    assert abs(np.corrcoef(video, audio)[0, 1]) < 0.05


def test_levels_are_independent_of_the_noise() -> None:
    """Catches: one generator for both roles, which would tie the level to the first noise value."""
    drawn = [of([Use(Name(f"{i}"))], step=i, grid=(1, 1, 1), audio=1) for i in range(2000)]
    first = [d.video_noise[0, 0, 0].item() for d in drawn]
    assert abs(np.corrcoef(first, [d.video_sigma.item() for d in drawn])[0, 1]) < 0.08


def test_noise_is_standard_normal_in_fp32() -> None:
    drawn = of(uses("a", "b"), grid=(4, 8, 8), audio=64)
    for noise in (drawn.video_noise, drawn.audio_noise):
        assert noise.dtype == torch.float32
        assert abs(noise.mean().item()) < 0.02 and abs(noise.std().item() - 1) < 0.02
    assert drawn.video_noise.shape == (2, 256, 128) and drawn.audio_noise.shape == (2, 64, 128)


def test_a_draw_does_not_depend_on_its_batch() -> None:
    """A use alone, in another order and in another batch: the same numbers. Catches a sequential generator."""
    names = uses("a", "b", "c", "a")
    together = of(names)
    backwards = of(names[::-1])
    for row, use in enumerate(names):
        assert equal(Draw(*(v[row : row + 1] for v in vars(together).values())), of([use]))
    assert equal(together, Draw(*(v.flip(0) for v in vars(backwards).values())))


def test_every_part_of_the_key_counts() -> None:
    """Other step, seed, sample or position: other noise. Catches: two uses of a sample in a step sharing noise."""
    base = of([Use(Name("a"))])
    others = [of([Use(Name("a"))], step=4), of([Use(Name("a"))], seed=8), of([Use(Name("b"))]), of([Use(Name("a"), 1)])]
    assert not any(torch.equal(base.video_noise, other.video_noise) for other in others)
    assert not any(torch.equal(base.video_noise[0, :5], other.audio_noise[0]) for other in [base, *others])
    # The separator keeps neighbouring fields apart.
    assert generator(1, 11, "a", 0, "r").random() != generator(11, 1, "a", 0, "r").random()


def test_the_first_frame_is_given_with_its_probability() -> None:
    given = torch.cat([of([Use(Name(f"{i}"))], step=i, p=0.3).clean for i in range(2000)])
    assert torch.equal(given[:, :4].any(1), given[:, :4].all(1)), "either the whole first frame or nothing"
    assert not given[:, 4:].any(), "only latent frame 0"
    assert abs(given[:, 0].float().mean().item() - 0.3) < 0.04
    assert not of(uses("a"), p=0.0).clean.any()
    assert of(uses("a"), p=1.0).clean[:, :4].all()


def test_a_single_frame_is_never_given() -> None:
    """Catches: an image whose only frame is clean, so that its loss is 0."""
    assert not of(uses("a", "b"), grid=(1, 2, 2), p=1.0).clean.any()


def test_held_out_noise_is_fixed_and_never_used_in_training() -> None:
    fixed = held_out_draw(7, "a", (2, 2, 2), 5, 0.3)
    again = held_out_draw(7, "a", (2, 2, 2), 5, 0.9)
    assert torch.equal(fixed.video_noise, again.video_noise)
    assert fixed.video_sigma.item() == fixed.audio_sigma.item() == pytest.approx(0.3)
    assert again.video_sigma.item() == pytest.approx(0.9)
    assert not fixed.clean.any()
    trained = [of([Use(Name("a"), position)], step=step).video_noise for step in range(50) for position in range(2)]
    assert not any(torch.equal(fixed.video_noise, noise) for noise in trained)
