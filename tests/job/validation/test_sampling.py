"""Schedule, guidance and Euler steps against an independent float64 reference."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ltx2_job.errors import Stopped
from ltx2_job.models.transformer import Stream
from ltx2_job.validation.guidance import Guidance, guide
from ltx2_job.validation.sampler import Prompt, Request, noise, sample
from ltx2_job.validation.schedule import sigmas
from reference import sampling as reference


@pytest.mark.parametrize("steps", [1, 2, 8, 30, 40])
def test_schedule_is_the_official_one(steps):
    """Catches another mu, linspace without its end, stretching the zero too, or not stretching."""
    assert np.allclose(sigmas(steps), reference.schedule(steps), rtol=0, atol=1e-12)


def test_schedule_by_hand():
    """Two steps: 1, then e^2.05 / (e^2.05 + 1) = 0.886 stretched to 0.1, then 0. Catches a wrong reference."""
    assert sigmas(2) == pytest.approx([1.0, 0.1, 0.0])
    middle = math.exp(2.05) / (math.exp(2.05) + 1)
    last = math.exp(2.05) / (math.exp(2.05) + 3)
    assert sigmas(4)[2] == pytest.approx(1 - (1 - middle) * 0.9 / (1 - last))


@pytest.mark.parametrize("scales", [(5, 0, 1, 0), (7, 0, 1, 0.7), (3, 1, 3, 0.7), (1, 1, 1, 0), (1, 0, 3, 0)])
def test_guidance_is_the_official_one(scales):
    """Catches scales that are off by one, a rescale about the wrong deviation, a term with the wrong sign."""
    generator = np.random.default_rng(0)
    x, negative, skipped, isolated = (generator.normal(size=(1, 6, 5)) for _ in range(4))
    got = guide(Guidance(*scales), *(torch.from_numpy(each) for each in (x, negative, skipped, isolated)))
    assert np.allclose(got, reference.guided(x, negative, skipped, isolated, *scales), rtol=1e-12, atol=1e-12)


def test_no_guidance_is_the_prediction_itself():
    """Catches a rescale that touches a single pass."""
    x = torch.randn(1, 3, 4)
    assert guide(Guidance(rescale=0.7), x) is x


def test_a_scale_below_one_guides_nothing():
    """`validation_guidance: 0` means off to users of the guide. Catches sampling from the negative prompt."""
    x, negative = torch.randn(1, 3, 4), torch.randn(1, 3, 4)
    assert torch.equal(guide(Guidance(cfg=0.0), x, negative), x)


class FakeModel:
    """A velocity that is linear in the latents and depends on sigma, text and both modalities; counts its passes."""

    training = True

    def __init__(self):
        self.proj_in = SimpleNamespace(weight=torch.zeros(1))
        self.passes = []
        self.modes = []

    def train(self, mode=True):
        self.training = mode

    def eval(self):
        self.training = False

    def tables(self, grid, fps, audio_latents):
        self.shape = (grid, fps, audio_latents)
        return "tables"

    def velocity(self, video: Stream, audio: Stream, tables, *, skip_self_attention_blocks=(), isolate=False):
        assert tables == "tables" and video.clean is None and video.latent.dtype == torch.float32
        self.passes.append((float(video.text.mean()), tuple(skip_self_attention_blocks), isolate))
        self.modes.append(self.training)
        return tuple(
            fake_velocity(own.latent, float(own.sigma), float(own.text.mean()), skip_self_attention_blocks, isolate)
            for own in (video, audio)
        )


def fake_velocity(latent, sigma, text, skip, isolate):
    return 0.3 * latent * (1 + sigma) + 0.1 * text + (0.05 if skip else 0) - (0.07 * latent if isolate else 0)


def prompts():
    return Prompt(torch.full((4, 3), 1.0), torch.full((4, 2), 1.0)), Prompt(
        torch.full((4, 3), -2.0), torch.full((4, 2), -2.0)
    )


@pytest.mark.parametrize("guided", [False, True])
def test_sampling_follows_the_reference(guided):
    """The whole loop. Catches guidance on velocities in place of x0, one scale for both modalities, sigma x 1000 given
    to `velocity`, the wrong order of noise, and an Euler step with the wrong sign."""
    scales = (Guidance(5, 1, 3, 0.7), Guidance(7, 1, 3, 0.7)) if guided else (Guidance(5), Guidance(7))
    request = Request(64, 32, 17, 25.0, steps=6, seed=3, video=scales[0], audio=scales[1], skipped_block=1)
    model = FakeModel()
    video, audio = sample(model, request, *prompts())

    def predict(current, level):
        answers = []
        for x, scale in zip(current, scales, strict=True):
            passes = [(1.0, (), False), (-2.0, (), False), (1.0, (1,), False), (1.0, (), True)]
            clean = [x - level * fake_velocity(x, level, *each) for each in passes]
            answers.append(reference.guided(*clean, scale.cfg, scale.stg, scale.modality, scale.rescale))
        return answers

    start = [each.numpy() for each in noise(request)]
    expected_video, expected_audio = reference.euler(start, reference.schedule(6), predict)
    grid = (3, 1, 2)
    assert np.allclose(video[0].flatten(1).T, expected_video[0], atol=2e-4)
    assert np.allclose(audio, expected_audio, atol=2e-4)
    assert video.shape == (1, 128, *grid) and audio.shape == (1, 17, 128)
    assert model.shape == (grid, 25.0, 17)  # round(17 / 25 * 25)
    assert len(model.passes) == 6 * (4 if guided else 2)
    assert not any(model.modes) and model.training  # no dropout while sampling, and back to training after it


def test_a_model_that_was_not_training_is_left_so():
    """Catches `generate` and `validate` that switch dropout on behind their own back."""
    model = FakeModel()
    model.training = False
    sample(model, Request(32, 32, 9, 25.0, steps=1, seed=0), *prompts())
    assert not model.training


def test_unguided_sampling_takes_one_pass_a_step():
    """Catches a negative pass whose result is multiplied by 0."""
    model = FakeModel()
    sample(model, Request(32, 32, 9, 25.0, steps=5, seed=0), *prompts())
    assert model.passes == [(1.0, (), False)] * 5


def test_noise_is_the_seeds_alone():
    """Catches noise from the global generator: training draws would change, and two validations would differ."""
    state = torch.get_rng_state()
    first, again = noise(Request(64, 32, 9, 25.0, 1, seed=5)), noise(Request(64, 32, 9, 25.0, 1, seed=5))
    other = noise(Request(64, 32, 9, 25.0, 1, seed=6))
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])
    assert torch.equal(state, torch.get_rng_state())


def test_a_wish_to_stop_is_heard_between_two_steps():
    """Catches a sampling of several minutes that outlives the grace period."""
    model, asked = FakeModel(), []

    def check():
        asked.append(1)
        if len(asked) == 3:
            raise Stopped("stop")

    with pytest.raises(Stopped):
        sample(model, Request(32, 32, 9, 25.0, steps=9, seed=0), *prompts(), check)
    assert len(model.passes) == 2 and model.training
