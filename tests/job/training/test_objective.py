"""The loss against the float64 reference, what the model is fed, and mutations that must not go unseen."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ltx2_job.models.transformer import LTX2Transformer, Stream
from ltx2_job.training import objective
from ltx2_job.training.adapters import AdapterSet
from ltx2_job.training.draw import Draw
from ltx2_job.training.objective import Batch, losses
from reference import loss as reference

GRID, AUDIO, WEIGHT = (2, 2, 2), 5, 0.7
SOUNDING = [True, False, True]


class Fixed:
    """Stands in for the transformer: answers with fixed velocities and remembers what it was asked."""

    def __init__(self, batch: int):
        made = torch.Generator().manual_seed(5)
        self.video, self.audio = (torch.randn(batch, n, 128, generator=made) for n in (8, AUDIO))

    def tables(self, grid: tuple[int, int, int], fps: float, audio: int) -> tuple[Any, ...]:
        return grid, fps, audio

    def velocity(self, video: Stream, audio: Stream, tables: Any, **more: Any) -> tuple[Tensor, Tensor]:
        self.asked = video, audio, tables, more
        return self.video, self.audio


def data(sounding: list[bool] = SOUNDING, *, of_all: tuple[int, int] | None = None) -> tuple[Batch, Draw]:
    """A batch, and a draw whose second sample has its first frame given. `of_all`: samples and sounding of the step."""
    made = torch.Generator().manual_seed(3)
    count = len(sounding)
    samples, heard = of_all or (count, sum(sounding))
    video, audio, video_noise, audio_noise = (
        torch.randn(3, n, 128, generator=made)[:count] for n in (8, AUDIO, 8, AUDIO)
    )
    sound = torch.tensor([float(s) for s in sounding])
    text = torch.randn(3, 16, 64, generator=made)[:count]
    batch = Batch(
        video=video,
        audio=audio * sound[:, None, None],
        video_text=text,
        audio_text=text.flip(-1),
        video_share=torch.full((count,), 1 / samples),
        audio_share=sound / max(1, heard),
        a2v_scale=sound,
        grid=GRID,
        fps=25.0,
    )
    clean = torch.zeros(count, 8, dtype=torch.bool)
    clean[1:2, :4] = True
    sigma = torch.tensor([[0.2, 0.6, 0.95], [0.8, 0.1, 0.5]])[:, :count]
    return batch, Draw(video_noise, audio_noise, sigma[0], sigma[1], clean)


def as64(tensor: Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


def expected(batch: Batch, draw: Draw, model: Fixed) -> tuple[float, float, float]:
    rows = range(len(batch.video))
    nothing = np.zeros(AUDIO, bool)
    v, a, vn, an = (as64(x) for x in (batch.video, batch.audio, draw.video_noise, draw.audio_noise))
    video = [reference.one(as64(model.video)[i], v[i], vn[i], draw.clean[i].numpy()) for i in rows]
    audio = [reference.one(as64(model.audio)[i], a[i], an[i], nothing) for i in rows]
    return reference.step(video, audio, SOUNDING, WEIGHT)


def agrees(run: Callable[..., objective.Losses] = losses) -> bool:
    """Whether the losses of a whole step are the reference's."""
    batch, draw = data()
    model = Fixed(3)
    ours = run(model, batch, draw, WEIGHT)
    return np.allclose(
        [ours.total.item(), ours.video.item(), ours.audio.item()], expected(batch, draw, model), rtol=2e-6
    )


def test_losses_equal_the_float64_reference() -> None:
    assert agrees()


def test_the_model_is_fed_as_the_reference_noises() -> None:
    """Own level for each modality, clean tokens clean, the silent sample unheard. Catches "sigma shared"."""
    batch, draw = data()
    model = Fixed(3)
    losses(model, batch, draw, WEIGHT)
    video, audio, tables, more = model.asked
    nothing = np.zeros(AUDIO, bool)
    for i in range(3):
        args = (as64(batch.video)[i], as64(draw.video_noise)[i], float(draw.video_sigma[i]), draw.clean[i].numpy())
        np.testing.assert_allclose(video.latent[i].numpy(), reference.noised(*args), rtol=1e-5, atol=1e-6)
        args = (as64(batch.audio)[i], as64(draw.audio_noise)[i], float(draw.audio_sigma[i]), nothing)
        np.testing.assert_allclose(audio.latent[i].numpy(), reference.noised(*args), rtol=1e-5, atol=1e-6)
    assert torch.equal(video.sigma, draw.video_sigma) and torch.equal(audio.sigma, draw.audio_sigma)
    assert torch.equal(video.clean, draw.clean) and audio.clean is None
    assert torch.equal(more["a2v_scale"], torch.tensor([1.0, 0.0, 1.0])) and more["isolate"] is False
    assert tables == (GRID, 25.0, AUDIO)
    assert video.text is batch.video_text and audio.text is batch.audio_text


def test_mutation_first_frame_in_the_loss_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objective, "masked_mean", lambda squared, counted: squared.mean((-1, -2)))
    assert not agrees()


def test_mutation_mask_without_renormalising_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objective, "masked_mean", lambda squared, counted: (squared.mean(-1) * counted).mean(-1))
    assert not agrees()


def test_mutation_audio_divided_by_all_samples_is_caught() -> None:
    def mutated(model: Any, batch: Batch, draw: Draw, weight: float) -> objective.Losses:
        return losses(model, replace(batch, audio_share=batch.a2v_scale / 3), draw, weight)

    assert not agrees(mutated)


def test_mutation_target_of_the_other_sign_is_caught() -> None:
    def mutated(model: Any, batch: Batch, draw: Draw, weight: float) -> objective.Losses:
        swapped = replace(batch, video=draw.video_noise), replace(draw, video_noise=batch.video)
        return losses(model, *swapped, weight)

    assert not agrees(mutated)


def test_a_sample_whose_every_token_is_given_has_loss_zero_and_no_nan() -> None:
    batch, draw = data()
    model = Fixed(3)
    part = losses(model, batch, replace(draw, clean=torch.ones_like(draw.clean)), WEIGHT)
    assert part.video.item() == 0.0


def adapted(transformer: LTX2Transformer) -> AdapterSet:
    """LoRA with a B that is not zero, so that every weight has a gradient."""
    adapters = AdapterSet.create(transformer, rank=4, alpha=4.0, seed=1)
    made = torch.Generator().manual_seed(2)
    for key, view in adapters.views.items():
        if ".lora_B." in key:
            view.copy_(torch.randn(view.shape, generator=made) * 0.05)
    return adapters


def gradient(
    model: LTX2Transformer, adapters: AdapterSet, work: list[tuple[Batch, Draw]], weight: float = 1.0
) -> Tensor:
    adapters.gradient.zero_()
    for batch, draw in work:
        losses(model, batch, draw, weight).total.backward()
    return adapters.gradient.clone()


def rows(batch: Batch, draw: Draw, at: slice) -> tuple[Batch, Draw]:
    cut = {name: value[at] for name, value in vars(batch).items() if isinstance(value, Tensor)}
    return replace(batch, **cut), Draw(*(value[at] for value in vars(draw).values()))


def test_a_silent_clip_changes_nothing_of_the_audio_gradient(transformer: Callable[[], LTX2Transformer]) -> None:
    """[sounding, silent] against [sounding], the audio term alone; and the divisor of N3, over two micro-batches."""
    model = transformer()
    adapters = adapted(model)
    batch, draw = data([True, False])
    quiet = replace(batch, video_share=torch.zeros(2))
    both = gradient(model, adapters, [(quiet, draw)])
    alone = gradient(model, adapters, [rows(quiet, draw, slice(0, 1))])
    torch.testing.assert_close(both, alone, rtol=1e-4, atol=1e-7)
    assert alone.norm() > 1e-3

    split = [rows(batch, draw, slice(0, 1)), rows(batch, draw, slice(1, 2))]
    torch.testing.assert_close(
        gradient(model, adapters, split), gradient(model, adapters, [(batch, draw)]), rtol=1e-4, atol=1e-7
    )


def test_mutation_audio_divided_by_the_local_count_is_caught(transformer: Callable[[], LTX2Transformer]) -> None:
    """Three clips in micro-batches of two and one: means of means are another loss."""
    model = transformer()
    adapters = adapted(model)
    batch, draw = data()
    whole = gradient(model, adapters, [(batch, draw)])
    split = [rows(batch, draw, slice(0, 2)), rows(batch, draw, slice(2, 3))]
    torch.testing.assert_close(gradient(model, adapters, split), whole, rtol=1e-4, atol=1e-7)
    local = [
        (
            replace(
                b, audio_share=b.a2v_scale / b.a2v_scale.sum() / 2, video_share=b.a2v_scale * 0 + 0.5 / len(b.video)
            ),
            d,
        )
        for b, d in split
    ]
    assert (gradient(model, adapters, local) - whole).norm() > 0.05 * whole.norm()


def test_a_silent_clip_is_not_heard_by_its_video(transformer: Callable[[], LTX2Transformer]) -> None:
    """Other audio noise: the silent clip's video loss stays, the sounding one's moves. Catches a2v_scale left out."""
    model = transformer()
    batch, draw = data([True, False])
    other = replace(draw, audio_noise=draw.audio_noise.flip(-1))
    for at, same in ((slice(1, 2), True), (slice(0, 1), False)):
        before, after = (losses(model, *rows(batch, d, at), 1.0).video.item() for d in (draw, other))
        assert (before == after) is same


def test_a_run_without_audio_trains_the_video_as_if_alone(transformer: Callable[[], LTX2Transformer]) -> None:
    model = transformer()
    batch, draw = data([False, False])
    alone = replace(batch, audio=torch.zeros(2, 1, 128), isolate=True)
    quiet = replace(draw, audio_noise=torch.zeros(2, 1, 128))
    noisy = replace(draw, audio_noise=torch.ones(2, 1, 128))
    first, second = losses(model, alone, quiet, 1.0), losses(model, alone, noisy, 1.0)
    assert first.video.item() == second.video.item() == pytest.approx(first.total.item())
    assert first.audio.item() == 0.0
