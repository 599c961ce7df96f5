"""Writes a tiny random LTX-2: the real architecture and file layout with small sizes, to try things out and for tests.

The combined file has every tensor name of the generation, modulation tables in F32, the rest in BF16, the header's
config with all keys of the published files, and the three unused statistics of 2.0. Latents keep their real number of
channels (128 video, 128 audio) and compression (8 x 32 x 32); vocoder rates and mel bands are real too. Beside it lies
a Gemma 3 in miniature with a tokenizer of its own. The weights are random: pictures decode to noise, and only plumbing
and falling losses can be shown with them.

Deterministic: the same arguments write the same bytes (on one machine; the calibrated statistics depend on its
convolutions in the last bit before they are rounded to bf16). No network is used.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from ltx2_job.models import layout, tiny_clips, tiny_gemma, tiny_header
from ltx2_job.models.header import read_header
from ltx2_job.models.layout import (
    Architecture,
    AudioVAE,
    Connector,
    Generator,
    Text,
    Transformer,
    Version,
    VideoVAE,
    Vocoder,
)
from ltx2_job.models.tiny_file import TYPES, raw_bytes, seeded, write_safetensors

FILE_NAME: Final = "ltx-2-tiny.safetensors"


def tiny_architecture(version: Version, blocks: int) -> Architecture:
    """Sizes of the tiny model: 4 heads of 16 (video) and 8 (audio), one residual block where the real one has many."""
    text_video, text_audio = Connector(4, 16, 1), Connector(4, 16, 1)
    vae = VideoVAE(128, (128,) * 5, (1,) * 5, (128, 64, 32, 16), (1,) * 4)
    vocoder = Vocoder(Generator(32, (6, 5, 2, 2, 2), (16, 15, 8, 4, 4)))
    if version == "2.3":
        text_video, text_audio = Connector(4, 16, 2), Connector(4, 8, 2)
        vae = VideoVAE(128, (128,) * 5, (1,) * 5, (128, 64, 64, 32, 16), (1,) * 5)
        vocoder = Vocoder(
            Generator(64, (5, 2, 2, 2, 2, 2), (11, 4, 4, 4, 4, 4)),
            Generator(32, (6, 5, 2, 2, 2), (12, 11, 4, 4, 4)),
            output_rate=48000,
        )
    return Architecture(
        version=version,
        transformer=Transformer(blocks, heads=4, head_dim=16, audio_head_dim=8, channels=128, audio_channels=128),
        text=Text(tiny_gemma.HIDDEN, tiny_gemma.LAYERS + 1, text_video, text_audio),
        vae=vae,
        audio_vae=AudioVAE(base=128, multipliers=(1, 1, 1), blocks=1, latent_channels=8),
        vocoder=vocoder,
    )


def write_tiny(folder: Path, version: str = "2.0", blocks: int = 2, seed: int = 0) -> Path:
    """Write the tiny model into `folder` (made if missing) and return the path of its combined file.

    version: "2.0" or "2.3". blocks: transformer blocks, at least 1. The Gemma folder `gemma` lies beside the file.
    Raises ValueError for other arguments.
    """
    if version not in ("2.0", "2.3"):
        raise ValueError(f"version must be 2.0 or 2.3, got {version!r}")
    if blocks < 1:
        raise ValueError(f"blocks must be at least 1, got {blocks}")
    arch = tiny_architecture("2.0" if version == "2.0" else "2.3", blocks)
    folder.mkdir(parents=True, exist_ok=True)
    tiny_gemma.write_gemma(folder / "gemma", seed)
    shapes = dict(layout.tensors(arch))
    if version == "2.0":
        shapes.update(dict.fromkeys(layout.UNUSED, (arch.vae.latent_channels,)))
    path = folder / FILE_NAME
    unfinished = folder / f".{FILE_NAME}.{os.getpid()}.tmp"
    try:
        tensors = {name: _values(name, shape, arch, seed) for name, shape in shapes.items()}
        write_safetensors(unfinished, tensors, tiny_header.metadata(arch))
        _calibrate(unfinished)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path


def _values(name: str, shape: layout.Shape, arch: Architecture, seed: int) -> Tensor:
    """Random weights on the scale of torch's own initialisation; filters and bases get the values that they need."""
    leaf = name.rsplit(".", 1)[1]
    if name.startswith("vocoder.mel_stft."):
        value = _bases(arch.vocoder)[leaf].reshape(shape)
    elif leaf == "filter":
        value = _lowpass().reshape(shape)
    elif ".per_channel_statistics." in name:
        value = torch.zeros(shape) if name.endswith("mean-of-means") else torch.ones(shape)
    else:
        noise = torch.randn(shape, generator=seeded(name, seed))
        if name.endswith("_norm.weight"):
            value = 1 + 0.1 * noise
        elif leaf == "learnable_registers":
            value = noise
        elif "scale_shift_table" in leaf:
            value = noise / math.sqrt(shape[-1])
        elif len(shape) == 1:
            value = 0.05 * noise
        else:
            value = noise / math.sqrt(3 * math.prod(shape[1:]))
    return value.to(TYPES[layout.dtype_of(name)])


def _lowpass() -> Tensor:
    """The vocoder's 12-tap half-band filter: sinc times a Kaiser window, unit sum (BigVGAN's antialiasing filter).

    Cut-off at a quarter of the sample rate, half-width 0.3; the window's beta by Kaiser's formula for 51 dB.
    """
    taps = layout.ANTIALIAS_TAPS
    attenuation = 2.285 * (taps / 2 - 1) * math.pi * 4 * 0.3 + 7.95
    window = torch.kaiser_window(taps, periodic=False, beta=0.1102 * (attenuation - 8.7), dtype=torch.float64)
    kernel = torch.sinc((torch.arange(taps, dtype=torch.float64) - (taps - 1) / 2) / 2) * window
    return (kernel / kernel.sum()).float()


def _bases(vocoder: Vocoder) -> dict[str, Tensor]:
    """The second vocoder stage's windowed Fourier basis (real rows, then imaginary), its adjoint, and its mel bands."""
    n, bins = vocoder.n_fft, vocoder.n_fft // 2 + 1
    angle = 2 * math.pi * torch.outer(torch.arange(bins), torch.arange(n)).double() / n
    fourier = torch.cat([angle.cos(), -angle.sin()])
    window = torch.hann_window(n, dtype=torch.float64)
    # Triangles that rise and fall between neighbouring corners, equally spaced in O'Shaughnessy's mels.
    top = 2595 * math.log10(1 + vocoder.input_rate / 2 / 700)
    corners = 700 * (10 ** (torch.linspace(0, top, vocoder.mel_bins + 2, dtype=torch.float64) / 2595) - 1)
    frequency = torch.linspace(0, vocoder.input_rate / 2, bins, dtype=torch.float64)[None]
    low, middle, high = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    bands = torch.minimum((frequency - low) / (middle - low), (high - frequency) / (high - middle)).clamp(min=0)
    return {"forward_basis": fourier * window, "inverse_basis": fourier * window / n, "mel_basis": bands / bins}


def _calibrate(path: Path) -> None:
    """Set both latents' statistics so that smooth synthetic clips have mean 0 and variance 1 in every channel."""
    from ltx2_job.models.load import Checkpoint

    checkpoint = Checkpoint.open(path)
    means, deviations = {}, {}
    with torch.no_grad():
        vae = checkpoint.video_vae("cpu", torch.float32)
        latents = [vae.encode(clip[None]).latent_dist.mode()[0].flatten(1) for clip in tiny_clips.clips()]
        means["vae"], deviations["vae"] = _moments(torch.cat(latents, dim=1))
        audio_vae = checkpoint.audio_vae("cpu")
        modes = [audio_vae.encode(mel[None]).latent_dist.mode()[0] for mel in tiny_clips.mels()]
        packed = torch.cat([mode.permute(0, 2, 1).flatten(0, 1) for mode in modes], dim=1)
        means["audio_vae"], deviations["audio_vae"] = _moments(packed)
    header = read_header(path)
    with path.open("r+b") as file:
        for part in ("vae", "audio_vae"):
            for name, values in (("mean-of-means", means[part]), ("std-of-means", deviations[part])):
                file.seek(header.tensors[f"{part}.per_channel_statistics.{name}"].begin)
                file.write(raw_bytes(values.to(torch.bfloat16)))


def _moments(samples: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each row; a constant channel keeps a small deviation instead of dividing by 0."""
    return samples.mean(1), samples.std(1).clamp(min=1e-3)
