"""Where tokens lie in time and space, and the rotary tables (RoPE) made from it.

Formulas: the official LTX-2 code as described by its trainer. Latent video frame f spans the pixel frames
max(0, 8f - 7) to 8f + 1 (the causal VAE gives the first frame a latent of its own), divided by the frame rate: seconds.
A latent row or column spans 32 pixels. Audio latent i spans max(0, 4i - 3) to 4i + 1 spectrogram frames of 10 ms.
A token's position is the middle of its span, as a fraction of 20 s, 2048 and 2048 pixels. Frequencies run over the
whole width of an attention (not per head) and the tables are in split layout: channel j of a head is rotated with
channel j + half. Attention between the modalities uses the time axis only.

The frequencies are made in float64 and rounded to float32; everything after is float32, in the order written here.
The highest frequency is 15,708 radians over the whole range, so another order of rounding moves tables by 1e-3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Grid = tuple[int, int, int]
"""Latent frames, rows, columns."""


@dataclass(frozen=True)
class Rope:
    """Rotation of every token: cos and sin, each [B or 1, tokens, heads, head width / 2]."""

    cos: Tensor
    sin: Tensor


@dataclass(frozen=True)
class Tables:
    """Rotations of one shape: each modality's self-attention (video: time, y, x), and by time for attention between."""

    video: Rope
    audio: Rope
    video_time: Rope
    audio_time: Rope


def pack_video(latents: Tensor) -> Tensor:
    """[B, C, f, h, w] -> tokens [B, f * h * w, C], frame by frame, row by row."""
    return latents.flatten(2).transpose(1, 2)


def unpack_video(tokens: Tensor, grid: Grid) -> Tensor:
    """Tokens [B, f * h * w, C] -> [B, C, f, h, w]. Raises RuntimeError when the grid has another number of tokens."""
    return tokens.transpose(1, 2).unflatten(2, grid)


def video_spans(config: Mapping[str, Any], grid: Grid, fps: float, device: torch.device | str = "cpu") -> Tensor:
    """Start and end of every video token: float32 [1, 3, f * h * w, 2]; time in seconds, y and x in pixels.

    config: the transformer's. fps: frame rate that the model is told.
    """
    scale = config["vae_scale_factors"]
    time = _edges(grid[0], scale[0], device).sub(scale[0] - 1).clamp(min=0) / fps
    axes = (time, _edges(grid[1], scale[1], device), _edges(grid[2], scale[2], device))
    shapes = ((grid[0], 1, 1), (1, grid[1], 1), (1, 1, grid[2]))
    spread = [edges.reshape(*shape, 2).expand(*grid, 2) for edges, shape in zip(axes, shapes, strict=True)]
    return torch.stack(spread).flatten(1, 3).unsqueeze(0)


def audio_spans(config: Mapping[str, Any], latents: int, device: torch.device | str = "cpu") -> Tensor:
    """Start and end of every audio token in seconds: float32 [1, 1, latents, 2]. config: the transformer's."""
    scale = config["audio_scale_factor"]
    edges = _edges(latents, scale, device).sub(scale - 1).clamp(min=0)
    return (edges * config["audio_hop_length"] / config["audio_sampling_rate"])[None, None]


def midpoints(spans: Tensor) -> Tensor:
    """Position of a token: the middle of its span. [..., 2] -> [...]."""
    return (spans[..., 0] + spans[..., 1]) / 2.0


def tables(
    config: Mapping[str, Any],
    grid: Grid,
    fps: float,
    audio_latents: int,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Tables:
    """Rotary tables of one shape, for every sample of a batch alike.

    config: the transformer's (diffusers' names). grid: latent frames, rows, columns. audio_latents: audio tokens.
    dtype: of the tables, and of the rotation itself; float32 unless a test wants more.
    """
    video, audio = video_spans(config, grid, fps, device), audio_spans(config, audio_latents, device)
    return tables_of_spans(config, video, audio, dtype)


def tables_of_spans(
    config: Mapping[str, Any], video: Tensor, audio: Tensor, dtype: torch.dtype = torch.float32
) -> Tables:
    """Rotary tables from explicit spans: video [B or 1, 3, tokens, 2] and audio [B or 1, 1, tokens, 2]."""
    video_heads, audio_heads = config["num_attention_heads"], config["audio_num_attention_heads"]
    video_width = video_heads * config["attention_head_dim"]
    audio_width = audio_heads * config["audio_attention_head_dim"]
    seconds = (config["pos_embed_max_pos"], config["audio_pos_embed_max_pos"])
    theta, double = config["rope_theta"], config["rope_double_precision"]
    video_at, audio_at = midpoints(video), midpoints(audio)

    def rope(at: Tensor, extent: tuple[float, ...], width: int, heads: int) -> Rope:
        return _rope(at, extent, width, heads, theta, double, dtype)

    space = (config["base_height"], config["base_width"])
    between = (float(max(seconds)),)
    return Tables(
        video=rope(video_at, (seconds[0], *space), video_width, video_heads),
        audio=rope(audio_at, (seconds[1],), audio_width, audio_heads),
        video_time=rope(video_at[:, :1], between, config["audio_cross_attention_dim"], audio_heads),
        audio_time=rope(audio_at, between, config["audio_cross_attention_dim"], audio_heads),
    )


def rotate(x: Tensor, rope: Rope) -> Tensor:
    """x [B, tokens, heads, width] rotated in split layout, computed in the tables' dtype and given back in x's."""
    first, second = x.to(rope.cos.dtype).chunk(2, dim=-1)
    turned_first = torch.addcmul(first * rope.cos, second, rope.sin, value=-1)
    turned_second = torch.addcmul(second * rope.cos, first, rope.sin)
    return torch.cat((turned_first, turned_second), dim=-1).to(x.dtype)


def _edges(count: int, scale: int, device: torch.device | str) -> Tensor:
    """Start and end of `count` consecutive intervals of length `scale`: float32 [count, 2]."""
    starts = torch.arange(count, device=device, dtype=torch.float32)
    return torch.stack((starts * scale, (starts + 1) * scale), dim=-1)


def _rope(
    at: Tensor, extent: tuple[float, ...], width: int, heads: int, theta: float, double: bool, dtype: torch.dtype
) -> Rope:
    """Tables of positions `at` [B, axes, tokens]; `extent`: the position that becomes 1 on each axis."""
    axes = len(extent)
    grid_dtype = torch.float64 if double else torch.float32
    exponents = torch.linspace(0.0, 1.0, width // (2 * axes), dtype=grid_dtype, device=at.device)
    frequencies = (theta**exponents * (math.pi / 2)).to(torch.float32)
    fractions = torch.stack([at[:, axis] / extent[axis] for axis in range(axes)], dim=-1)
    # [B, tokens, frequencies, axes]: the axes of one frequency lie side by side.
    angles = ((fractions * 2 - 1)[:, :, None, :] * frequencies[:, None]).flatten(2).to(dtype)
    # Channels left over when the width is no multiple of 2 x axes are not rotated; they come first.
    spare = width // 2 - angles.shape[-1]
    angles = torch.nn.functional.pad(angles, (spare, 0)).unflatten(-1, (heads, -1))
    return Rope(angles.cos(), angles.sin())
