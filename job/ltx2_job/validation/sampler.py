"""Text to video and sound: Euler steps over the model's velocity, both modalities together."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ltx2_job.models.positions import Grid, Tables, unpack_video
from ltx2_job.models.transformer import LTX2Transformer, Stream
from ltx2_job.validation.guidance import Guidance, guide
from ltx2_job.validation.schedule import sigmas

CHANNELS = 128  # of a video token and of an audio token alike
AUDIO_RATE = 25  # audio latents per second


@dataclass(frozen=True)
class Prompt:
    """Connector outputs of one caption: video [T, Dv] and audio [T, Da]."""

    video: Tensor
    audio: Tensor


@dataclass(frozen=True)
class Request:
    """A clip to make. Width and height are pixels (multiples of 32), frames 8k + 1, fps frames per second."""

    width: int
    height: int
    frames: int
    fps: float
    steps: int
    seed: int
    video: Guidance = field(default_factory=Guidance)
    audio: Guidance = field(default_factory=Guidance)
    skipped_block: int | None = None  # whose self-attention the pass of `stg` leaves out

    @property
    def grid(self) -> Grid:
        """Latent frames, rows and columns."""
        return (self.frames - 1) // 8 + 1, self.height // 32, self.width // 32

    @property
    def audio_latents(self) -> int:
        """Audio tokens of the clip's duration."""
        return round(self.frames / self.fps * AUDIO_RATE)


def noise(request: Request) -> tuple[Tensor, Tensor]:
    """The starting tokens, video [1, N, 128] and audio [1, L, 128], fp32 on the CPU: the same for any device."""
    generator = torch.Generator().manual_seed(request.seed)
    frames, rows, columns = request.grid
    video = torch.randn(1, frames * rows * columns, CHANNELS, generator=generator)
    return video, torch.randn(1, request.audio_latents, CHANNELS, generator=generator)


@torch.no_grad()
def sample(
    model: LTX2Transformer,
    request: Request,
    prompt: Prompt,
    negative: Prompt,
    check: Callable[[], None] = lambda: None,
) -> tuple[Tensor, Tensor]:
    """Normalised latents of the clip: video [1, 128, f, h, w] and audio [1, L, 128], fp32 on the model's device.

    `check` is called before every step; what it raises ends the sampling (a wish to stop). The model is left in the
    mode (training or not) that it was in.
    """
    device = model.proj_in.weight.device
    video, audio = (tokens.to(device) for tokens in noise(request))
    tables = model.tables(request.grid, request.fps, request.audio_latents)
    levels = sigmas(request.steps)
    training = model.training
    model.eval()
    try:
        for level, next_level in itertools.pairwise(levels):
            check()
            clean_video, clean_audio = _guided(model, request, prompt, negative, (video, audio), level, tables)
            # Euler over dx = v dsigma with v = (x - x0) / sigma: a straight line towards x0, reached at sigma 0.
            part = next_level / level
            video = clean_video + part * (video - clean_video)
            audio = clean_audio + part * (audio - clean_audio)
    finally:
        model.train(training)
    return unpack_video(video, request.grid), audio


def _guided(
    model: LTX2Transformer,
    request: Request,
    prompt: Prompt,
    negative: Prompt,
    tokens: tuple[Tensor, Tensor],
    level: float,
    tables: Tables,
) -> tuple[Tensor, Tensor]:
    """x0 of both modalities at one noise level: the passes that the guidance asks for, one after another, combined."""
    both = (request.video, request.audio)

    def predict(text: Prompt, **changes: Any) -> tuple[Tensor, Tensor]:
        sigma = torch.full((1,), level, device=tokens[0].device)
        video = Stream(tokens[0], sigma, None, text.video[None].to(sigma.device))
        audio = Stream(tokens[1], sigma, None, text.audio[None].to(sigma.device))
        velocities = model.velocity(video, audio, tables, **changes)
        return tokens[0] - level * velocities[0].float(), tokens[1] - level * velocities[1].float()

    nothing = (None, None)
    x = predict(prompt)
    against = predict(negative) if any(each.cfg > 1 for each in both) else nothing
    blocks = () if request.skipped_block is None else (request.skipped_block,)
    skipped = predict(prompt, skip_self_attention_blocks=blocks) if any(each.stg for each in both) else nothing
    isolated = predict(prompt, isolate=True) if any(each.modality > 1 for each in both) else nothing
    video, audio = (guide(*each) for each in zip(both, x, against, skipped, isolated, strict=True))
    return video, audio
