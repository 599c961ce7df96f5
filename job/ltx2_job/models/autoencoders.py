"""Between pixels or sound and the normalised latents that the transformer is trained on.

Latents are the posterior's mode, minus the mean and divided by the standard deviation that the checkpoint carries:
per channel for video, per (channel, mel bin) after packing for audio. All of it in fp32, whatever the autoencoder runs
in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl_ltx2 import AutoencoderKLLTX2Video
    from diffusers.models.autoencoders.autoencoder_kl_ltx2_audio import AutoencoderKLLTX2Audio
    from diffusers.pipelines.ltx2.vocoder import LTX2Vocoder, LTX2VocoderWithBWE


@torch.no_grad()
def encode_video(vae: AutoencoderKLLTX2Video, pixels: Tensor) -> Tensor:
    """Normalised latents, fp32 [B, 128, f, h, w], of pixels [B, 3, F, H, W] in [-1, 1].

    f = (F - 1) / 8 + 1, h = H / 32, w = W / 32. Raises ValueError for another shape or for values outside [-1, 1].
    """
    _, colours, frames, height, width = pixels.shape
    time, space = vae.temporal_compression_ratio, vae.spatial_compression_ratio
    if colours != 3 or frames % time != 1 or height % space or width % space:
        raise ValueError(f"pixels have shape {list(pixels.shape)}; want [B, 3, {time}k+1, {space}m, {space}n]")
    if pixels.min() < -1 or pixels.max() > 1:
        raise ValueError(f"pixels run from {pixels.min():.3g} to {pixels.max():.3g}; want [-1, 1]")
    mode = vae.encode(pixels.to(vae.device, vae.dtype)).latent_dist.mode().float()
    return (mode - _channels(vae.latents_mean)) / _channels(vae.latents_std)


@torch.no_grad()
def decode_video(vae: AutoencoderKLLTX2Video, latents: Tensor) -> Tensor:
    """Pixels in [-1, 1], fp32 [B, 3, 8(f - 1) + 1, 32h, 32w], of normalised latents [B, 128, f, h, w]."""
    raw = latents.to(vae.device, torch.float32) * _channels(vae.latents_std) + _channels(vae.latents_mean)
    return vae.decode(raw.to(vae.dtype)).sample.float().clamp(-1, 1)


@torch.no_grad()
def encode_audio(audio_vae: AutoencoderKLLTX2Audio, mel: Tensor, length: int) -> Tensor:
    """Normalised latents, fp32 [B, length, 128], of log-mels [B, 2, T, 64] (100 frames a second).

    T frames give ceil(T / 4) latents; the clip's own duration rounds to `length` (25 a second), which may be one less:
    the last one is then cut. Raises ValueError for any other difference: that mel is not of this clip.
    """
    mode = audio_vae.encode(mel.to(audio_vae.device, audio_vae.dtype)).latent_dist.mode()
    packed = _pack(mode.float())
    if packed.shape[1] - length not in (0, 1):
        raise ValueError(f"{mel.shape[2]} mel frames give {packed.shape[1]} audio latents; the clip needs {length}")
    return (packed[:, :length] - audio_vae.latents_mean.float()) / audio_vae.latents_std.float()


@torch.no_grad()
def decode_audio(
    audio_vae: AutoencoderKLLTX2Audio, vocoder: LTX2Vocoder | LTX2VocoderWithBWE, latents: Tensor
) -> tuple[Tensor, int]:
    """The wave, fp32 [B, 2, S] in [-1, 1], of normalised latents [B, L, 128], and its sample rate.

    L latents are 4L - 3 mel frames: the sound ends up to 30 ms before its last latent does.
    """
    latents = latents.to(audio_vae.device, torch.float32)
    packed = latents * audio_vae.latents_std.float() + audio_vae.latents_mean.float()
    bins = packed.shape[-1] // audio_vae.config["latent_channels"]
    mel = audio_vae.decode(_unpack(packed, bins).to(audio_vae.dtype)).sample
    wave = vocoder(mel.to(vocoder.device, vocoder.dtype))
    return wave.float(), int(vocoder.config["output_sampling_rate"])


def _channels(statistic: Tensor) -> Tensor:
    return statistic.float().view(1, -1, 1, 1, 1)


def _pack(latents: Tensor) -> Tensor:
    """[B, channels, L, bins] -> [B, L, channels x bins], the bin fastest."""
    return latents.transpose(1, 2).flatten(2)


def _unpack(packed: Tensor, bins: int) -> Tensor:
    return packed.unflatten(2, (-1, bins)).transpose(1, 2)
