"""LTX-2's audio-video transformer: diffusers' modules and parameter names, the official trainer's forward.

diffusers' own forward is another function as soon as the modalities have different noise levels or a token is clean:
it feeds the attention between modalities either the own timestep for everything or the other modality's for everything.
Here (blocks.py) gates see the other modality's noise level, scales and shifts the token's own timestep.

`velocity` is what training and validation call: tensors in, tensors out, no host read and no branch on values.
`forward` has diffusers' signature, so that its pipelines run this model.
"""

from __future__ import annotations

import dataclasses
import functools
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.transformers.transformer_ltx2 import AudioVisualModelOutput, LTX2VideoTransformer3DModel
from diffusers.utils import apply_lora_scale
from torch import Tensor, nn

from ltx2_job.errors import CheckpointError, Problem
from ltx2_job.memory.runner import BlockRunner
from ltx2_job.models import positions
from ltx2_job.models.blocks import Context, Modality, adopt, modulate
from ltx2_job.models.positions import Grid, Rope, Tables

_TABLES_KEPT = 4
"""Shapes whose rotary tables are remembered; one of 6,144 video tokens takes about 150 MB."""


@dataclass(frozen=True)
class Stream:
    """One modality of a batch.

    latent: tokens [B, N, 128], noised (clean tokens as they are).
    sigma: noise level [B] in [0, 1], fp32; 0 for a modality that is given and not generated.
    clean: None, or bool [B, N], True on conditioned tokens: their timestep is 0.
    text: connector outputs [B, T, width]; every token is attended to (registers stand where padding was).
    """

    latent: Tensor
    sigma: Tensor
    clean: Tensor | None
    text: Tensor


class LTX2Transformer(LTX2VideoTransformer3DModel):
    """LTX-2.0 or 2.3 by its config; takes the arguments of diffusers' LTX2VideoTransformer3DModel.

    runner: runs the blocks; a memory plan replaces it by one that keeps fewer activations.

    Raises CheckpointError for a config that this forward does not compute: RoPE other than split, patches larger than
    one latent, the static prompt tables or keyframe embedding of LTX-2.5, unequal head counts.
    """

    _repeated_blocks = ["Block"]  # noqa: RUF012 - diffusers' form of this attribute
    # Recomputation belongs to `runner`; without this diffusers' switch would be accepted and do nothing.
    _supports_gradient_checkpointing = False
    # diffusers' plan for splitting sequences names modules that this forward does not call.
    _cp_plan = None  # type: ignore[assignment]

    runner: BlockRunner

    # diffusers reads the names of the config from this signature.
    @functools.wraps(LTX2VideoTransformer3DModel.__init__)  # type: ignore[misc]
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _check(self.config)
        for block in self.transformer_blocks:
            # diffusers' constructor names its block class; the modules it made are what we want, the forward is ours.
            adopt(block)
        self.runner = BlockRunner(self.transformer_blocks, keep=len(self.transformer_blocks))
        self._tables: OrderedDict[tuple[Any, ...], Tables] = OrderedDict()

    def tables(self, grid: Grid, fps: float, audio_latents: int) -> Tables:
        """Rotary tables of a shape on the model's device, made once and remembered for the last few shapes.

        grid: latent frames, rows, columns of the video. fps: frame rate told to the model. audio_latents: audio tokens.
        """
        device = self.proj_in.weight.device
        key = (tuple(grid), float(fps), audio_latents, device)
        if key not in self._tables:
            self._tables[key] = positions.tables(self.config, grid, fps, audio_latents, device)
        self._tables.move_to_end(key)
        while len(self._tables) > _TABLES_KEPT:
            self._tables.popitem(last=False)
        return self._tables[key]

    def velocity(
        self,
        video: Stream,
        audio: Stream,
        tables: Tables,
        *,
        a2v_scale: Tensor | None = None,
        skip_self_attention_blocks: Sequence[int] = (),
        isolate: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Predicted velocity (noise - data) of both modalities, [B, N, 128] and [B, L, 128], in the weights' dtype.

        tables: rotary tables of these shapes (`tables`, or positions.tables).
        a2v_scale: None or [B], factor on what the video receives from the audio; 0 for samples without sound.
        skip_self_attention_blocks: blocks whose self-attention passes its values through (spatio-temporal guidance).
        isolate: leave out the attention between the modalities (modality guidance).
        """
        dtype = self.proj_in.weight.dtype
        video_side, video_head = self._modality(video, audio, _VIDEO, tables.video, tables.video_time, dtype)
        audio_side, audio_head = self._modality(audio, video, _AUDIO, tables.audio, tables.audio_time, dtype)
        scale = None if a2v_scale is None else a2v_scale[:, None, None]
        context = Context(video_side, audio_side, scale, isolate)
        skipping = dataclasses.replace(context, skip_self_attention=True)
        skipped = frozenset(skip_self_attention_blocks)

        state = self.proj_in(video.latent.to(dtype)), self.audio_proj_in(audio.latent.to(dtype))
        contexts = [skipping if index in skipped else context for index in range(len(self.transformer_blocks))]
        video_x, audio_x = self.runner.run(state, contexts)
        video_x = _head(video_x, self.norm_out, self.scale_shift_table, video_head, video_side.clean)
        audio_x = _head(audio_x, self.audio_norm_out, self.audio_scale_shift_table, audio_head, audio_side.clean)
        return self.proj_out(video_x), self.audio_proj_out(audio_x)

    def _modality(
        self, own: Stream, other: Stream, names: _Names, rope: Rope, time_rope: Rope, dtype: torch.dtype
    ) -> tuple[Modality, Tensor]:
        """What the blocks need of one modality, and the rows [B, R, D] of its output layer."""
        scale = self.config["timestep_scale_multiplier"]
        timesteps = own.sigma[:, None] * scale
        clean = None
        if own.clean is not None:
            timesteps = torch.cat((timesteps, torch.zeros_like(timesteps)), dim=1)
            clean = own.clean[..., None]
        rows, embedded = _embed(getattr(self, names.embed), timesteps, dtype)
        cross_rows, _ = _embed(getattr(self, names.cross), timesteps, dtype)
        gate_timestep = gate_sigma(own, other)[:, None] * self.config["cross_attn_timestep_scale_multiplier"]
        gate, _ = _embed(getattr(self, names.gate), gate_timestep, dtype)
        prompt = None
        if self.prompt_modulation:
            prompt, _ = _embed(getattr(self, names.prompt), prompt_sigma(own)[:, None] * scale, dtype)
        text = own.text.to(dtype)
        if self.config["use_prompt_embeddings"]:
            text = getattr(self, names.caption)(text)
        return Modality(text, clean, rows, cross_rows, gate, prompt, rope, time_rope), embedded

    @apply_lora_scale("attention_kwargs")
    def forward(
        self,
        hidden_states: Tensor,
        audio_hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        audio_encoder_hidden_states: Tensor,
        timestep: Tensor,
        audio_timestep: Tensor | None = None,
        sigma: Tensor | None = None,
        audio_sigma: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        audio_encoder_attention_mask: Tensor | None = None,
        num_frames: int | None = None,
        height: int | None = None,
        width: int | None = None,
        fps: float = 24.0,
        audio_num_frames: int | None = None,
        video_coords: Tensor | None = None,
        audio_coords: Tensor | None = None,
        isolate_modalities: bool = False,
        spatio_temporal_guidance_blocks: list[int] | None = None,
        perturbation_mask: Tensor | None = None,
        use_cross_timestep: bool = False,
        attention_kwargs: dict[str, Any] | None = None,
        video_self_attention_mask: Tensor | None = None,
        video_keyframes_mask: Tensor | None = None,
        return_dict: bool = True,
    ) -> AudioVisualModelOutput | tuple[Tensor, Tensor]:
        """`velocity` behind diffusers' signature, for its pipelines; arguments and result as documented there.

        `use_cross_timestep` is ignored on purpose: both of its values differ from the official function. Timesteps per
        token have two values, the modality's (sigma x 1000) and 0 on clean tokens. Unlike `velocity` this reads values
        back to the host to check them.

        Raises ValueError for what the official function does not have: other timesteps, attention masks with zeros,
        masks of self-attention or keyframes, perturbation of single samples, attention_kwargs beside `scale`; and for
        positions of one modality only.
        """
        batch = hidden_states.shape[0]
        refused = {
            "perturbation_mask": perturbation_mask,
            "video_self_attention_mask": video_self_attention_mask,
            "video_keyframes_mask": video_keyframes_mask,
            "attention_kwargs (other than scale)": attention_kwargs or None,
        }
        for name, value in refused.items():
            if value is not None:
                raise ValueError(f"{name} is not supported by {type(self).__name__}; leave it out")
        _check_mask("encoder_attention_mask", encoder_attention_mask)
        _check_mask("audio_encoder_attention_mask", audio_encoder_attention_mask)

        scale = self.config["timestep_scale_multiplier"]
        audio_timestep = timestep if audio_timestep is None else audio_timestep
        audio_sigma = sigma if audio_sigma is None else audio_sigma
        video_level, video_clean = _split_timesteps("timestep", timestep, sigma, batch)
        audio_level, audio_clean = _split_timesteps("audio_timestep", audio_timestep, audio_sigma, batch)
        if video_coords is not None and audio_coords is not None:
            tables = positions.tables_of_spans(self.config, video_coords, audio_coords)
        elif num_frames is not None and height is not None and width is not None and audio_num_frames is not None:
            tables = self.tables((num_frames, height, width), fps, audio_num_frames)
        else:
            raise ValueError("give video_coords and audio_coords, or num_frames, height, width and audio_num_frames")
        video, audio = self.velocity(
            Stream(hidden_states, video_level / scale, video_clean, encoder_hidden_states),
            Stream(audio_hidden_states, audio_level / scale, audio_clean, audio_encoder_hidden_states),
            tables,
            skip_self_attention_blocks=spatio_temporal_guidance_blocks or (),
            isolate=isolate_modalities,
        )
        return AudioVisualModelOutput(sample=video, audio_sample=audio) if return_dict else (video, audio)


def gate_sigma(own: Stream, other: Stream) -> Tensor:
    """Noise level [B] that the gate of what `own` receives from `other` sees: the other's."""
    return other.sigma


def prompt_sigma(own: Stream) -> Tensor:
    """Noise level [B] behind the text's scale and shift (2.3): the modality's, one per sample, clean tokens or not."""
    return own.sigma


@dataclass(frozen=True)
class _Names:
    """diffusers' names of one modality's embedding modules."""

    embed: str
    cross: str
    gate: str
    prompt: str
    caption: str


_VIDEO = _Names(
    "time_embed",
    "av_cross_attn_video_scale_shift",
    "av_cross_attn_video_a2v_gate",
    "prompt_adaln",
    "caption_projection",
)
_AUDIO = _Names(
    "audio_time_embed",
    "av_cross_attn_audio_scale_shift",
    "av_cross_attn_audio_v2a_gate",
    "audio_prompt_adaln",
    "audio_caption_projection",
)


def _embed(module: nn.Module, timesteps: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Timesteps [B, R] -> modulation [B, R, k, D] and the embedding [B, R, D] it was made from."""
    rows, embedded = module(timesteps.flatten(), hidden_dtype=dtype)
    rows = rows.unflatten(-1, (-1, embedded.shape[-1]))
    return rows.unflatten(0, timesteps.shape), embedded.unflatten(0, timesteps.shape)


def _head(x: Tensor, norm: nn.Module, table: Tensor, embedded: Tensor, clean: Tensor | None) -> Tensor:
    """Input of the output projection: layer norm, then shift and scale from the own timestep."""
    shift, scale = (table + embedded[:, :, None]).to(x.dtype).unbind(2)
    return modulate(norm(x), scale, shift, clean)


def _split_timesteps(name: str, timestep: Tensor, sigma: Tensor | None, batch: int) -> tuple[Tensor, Tensor | None]:
    """Timesteps [B] or [B, N] with two values -> the modality's [B] and the mask of clean tokens [B, N] (None for [B]).

    sigma: the modality's timestep [B] if the caller gives it; else the largest of the sample's.
    """
    if timestep.ndim < 2:
        if sigma is not None and not bool((sigma == timestep).all()):
            raise ValueError(f"{name} [batch] and its sigma differ; give timesteps per token to mark clean ones")
        return timestep.expand(batch), None
    level = timestep.amax(dim=1) if sigma is None else sigma.flatten().expand(batch)
    clean = timestep == 0
    if not bool((clean | (timestep == level[:, None])).all()):
        raise ValueError(
            f"{name} per token must be the sample's timestep or 0 (a clean token); conditioning with a strength "
            "between 0 and 1 is not supported"
        )
    return level, clean


def _check_mask(name: str, mask: Tensor | None) -> None:
    if mask is not None and (mask.ndim != 2 or not bool((mask == 1).all())):
        raise ValueError(f"{name} must be all ones of shape [batch, tokens]: the connectors leave no padding")


def _check(config: Mapping[str, Any]) -> None:
    wanted = {
        "rope_type": "split",
        "patch_size": 1,
        "patch_size_t": 1,
        "audio_patch_size": 1,
        "audio_patch_size_t": 1,
        "causal_offset": 1,
        "use_prompt_adaln_single": True,
        "use_keyframes_abs_pos_embedding": False,
        "audio_num_attention_heads": config["num_attention_heads"],
        "audio_cross_attn_mod": config["cross_attn_mod"],
    }
    problems = [
        Problem(f"transformer.{name}", f"{config[name]!r} is not supported", f"this forward computes {value!r}")
        for name, value in wanted.items()
        if config[name] != value
    ]
    if problems:
        raise CheckpointError(problems)
