"""Rectified flow matching on both modalities: noise, target and loss. Tensors in, tensors out.

Nothing here reads a value on the host or branches on one, so that the whole step can be captured.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ltx2_job.models.transformer import Stream
from ltx2_job.training.draw import Draw

if TYPE_CHECKING:
    from ltx2_job.models.transformer import LTX2Transformer


@dataclass(frozen=True)
class Batch:
    """The data of one micro-batch of B samples of one bucket.

    video [B, N, C] and audio [B, L, C] fp32: normalised clean latents as tokens (zeros for a sample without sound; L =
    1 where the run has no audio at all). video_text [B, T, Dv], audio_text [B, T, Da]: connector outputs. video_share
    [B] fp32: 1 / samples of the whole optimizer step. audio_share [B] fp32: 1 / sounding samples of the whole optimizer
    step, over all ranks and accumulations, for a sounding sample, 0 for a silent one. a2v_scale [B] fp32: 1 for a
    sounding sample, 0 for a silent one, which must not be heard by its video. grid: latent (frames, height, width);
    fps: frames per second told to the model. isolate: no audio in this run.
    """

    video: Tensor
    audio: Tensor
    video_text: Tensor
    audio_text: Tensor
    video_share: Tensor
    audio_share: Tensor
    a2v_scale: Tensor
    grid: tuple[int, int, int]
    fps: float
    isolate: bool = False

    def to(self, device: torch.device) -> "Batch":
        """The same batch with its tensors on a device; from pinned memory without waiting."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin(self) -> "Batch":
        """The same batch in page-locked memory."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        changed: dict[str, Any] = {n: change(value) for n, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **changed)


@dataclass(frozen=True)
class Losses:
    """This micro-batch's share of the optimizer step's loss, as fp32 scalars.

    Added over all micro-batches and ranks of the step, `video` is the mean over all its samples and `audio` the mean
    over its sounding samples; `total` is video + weight x audio and carries the gradient.
    """

    total: Tensor
    video: Tensor
    audio: Tensor


def noised(clean_latent: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """x_s = (1 - s) x_0 + s e, with `sigma` [B, N] per token, latents and noise [B, N, C]."""
    level = sigma.unsqueeze(-1)
    return (1.0 - level) * clean_latent + level * noise


def masked_mean(squared: Tensor, counted: Tensor) -> Tensor:
    """Per sample: mean over tokens and channels of `squared` [B, N, C] x `counted` [B, N], divided by the mean of
    `counted`.

    The divisor is at least 1e-8, so a sample with nothing counted has loss 0.
    """
    return (squared.mean(-1) * counted).mean(-1) / counted.mean(-1).clamp_min(1e-8)


def losses(model: "LTX2Transformer", batch: Batch, draw: Draw, audio_loss_weight: float) -> Losses:
    """Loss of the velocity e - x_0 on noised latents, each modality at its own level.

    Conditioned tokens (`draw.clean`) enter clean and are not in the loss. Silent samples are not heard by their video
    (a2v scale 0) and not in the audio loss. All arithmetic here is fp32; the model runs under the caller's autocast.
    """
    video_sigma = torch.where(draw.clean, 0.0, draw.video_sigma.unsqueeze(-1))
    audio_sigma = draw.audio_sigma.unsqueeze(-1).expand(batch.audio.shape[:2])
    video_velocity, audio_velocity = model.velocity(
        Stream(noised(batch.video, draw.video_noise, video_sigma), draw.video_sigma, draw.clean, batch.video_text),
        Stream(noised(batch.audio, draw.audio_noise, audio_sigma), draw.audio_sigma, None, batch.audio_text),
        model.tables(batch.grid, batch.fps, batch.audio.shape[1]),
        a2v_scale=batch.a2v_scale,
        isolate=batch.isolate,
    )
    video = masked_mean((video_velocity.float() - (draw.video_noise - batch.video)).square(), (~draw.clean).float())
    audio = (audio_velocity.float() - (draw.audio_noise - batch.audio)).square().mean((-1, -2))
    video_part, audio_part = (video * batch.video_share).sum(), (audio * batch.audio_share).sum()
    return Losses(video_part + audio_loss_weight * audio_part, video_part.detach(), audio_part.detach())
