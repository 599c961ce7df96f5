"""The keys about noise, loss and conditioning, seen in what the model is given and in its gradients."""

import numpy as np
import pytest
import torch

from key_runs import Trainings
from ltx2_job.training.draw import generator
from reference.sigma import official_sigma, static_sigma
from training_runs import clip

STILL = {"max_train_steps": 8, "checkpoint_step_interval": 0, "learning_rate": 0}


def variates(seed: int = 42) -> np.ndarray:
    """The three numbers of every step's video level: normal, uniform, switch; [3, steps]."""
    sources = [generator(seed, step, "clips/a", 0, "video sigma") for step in range(8)]
    return np.array([(each.standard_normal(), each.random(), each.random()) for each in sources]).T


@pytest.mark.witness("flow_schedule_shift")
def test_flow_schedule_shift(trainings: Trainings) -> None:
    """Set, each level is the plain logit-normal's with its odds times the shift, whatever the clip's length; unset or
    0, the official one by the number of tokens.
    """
    normal, uniform, switch = variates()
    tokens = {9: 8, 33: 20}  # of a clip of 64 x 64 by its frames
    for shift in (None, 0, 1, 3):
        for frames, count in tokens.items():
            run = trainings(clip("a", frames=frames), **STILL, flow_schedule_shift=shift)
            wanted = static_sigma(normal, shift) if shift else official_sigma(normal, uniform, switch, count)
            found = [draw.video_sigma.item() for _, draw in run.work]
            np.testing.assert_allclose(found, wanted, rtol=1e-5)
    assert np.abs(static_sigma(normal, 1) - static_sigma(normal, 3)).min() > 0.02
    shorter, longer = (official_sigma(normal, uniform, switch, count) for count in tokens.values())
    assert np.abs(shorter - longer).max() > 1e-4


@pytest.mark.witness("ltx2_first_frame_conditioning_probability")
def test_ltx2_first_frame_conditioning_probability(trainings: Trainings) -> None:
    """How many steps give the model the first latent frame, all of it and nothing else; the rest is learnt."""
    counts = {}
    for probability in (0, 0.5, 1):
        run = trainings(**STILL, ltx2_first_frame_conditioning_probability=probability)
        given = [draw.clean.sum().item() for _, draw in run.work]
        assert set(given) <= {0, 4} and all(not draw.clean[:, 4:].any() for _, draw in run.work)
        counts[probability] = given.count(4)
    assert counts[0] == 0 and counts[1] == 8 and 1 <= counts[0.5] <= 7


@pytest.mark.witness("audio_loss_weight")
def test_audio_loss_weight(trainings: Trainings) -> None:
    """The gradient is the video's plus the weight times the audio's; so is the loss that is reported."""
    runs = {
        weight: trainings(audio_loss_weight=weight, adam_beta1=0, max_grad_norm=0, eval_steps_interval=0)
        for weight in (0, 1, 3)
    }
    gradients = {weight: run.moments(1, "exp_avg") for weight, run in runs.items()}
    for key, none in gradients[0].items():
        step = gradients[1][key] - none
        torch.testing.assert_close(gradients[3][key] - none, 3 * step, rtol=1e-3, atol=1e-7)
    assert any((gradients[1][key] - none).abs().max() > 1e-4 for key, none in gradients[0].items())
    for weight, run in runs.items():
        (loss,), (video,), (audio,) = (run.reported(name) for name in ("loss", "loss_video", "loss_audio"))
        assert loss == pytest.approx(video + weight * audio) and audio > 0.1
