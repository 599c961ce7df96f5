"""One transformer block: what happens to the video and the audio tokens, and with which modulation.

The modules and their names are diffusers' (LTX2VideoTransformerBlock, LTX2Attention), so that weights, LoRA files and
hooks fit; the order of the operations is the official one for training, where the two modalities have noise levels of
their own and some tokens are clean (conditioned):

* a token's scale, shift and gate come from its own timestep: the modality's, or 0 where the token is clean;
* the gate of the attention between modalities comes from the noise level of the OTHER modality, one per sample;
* the text's scale and shift (2.3) come from the modality's own noise level, one per sample.

A modality has at most two different timesteps per sample, so modulation is made for two rows and chosen by the mask of
clean tokens. The chosen thing is the modulated result, not the scale: then nothing of a token's size is kept for the
backward pass on behalf of frozen modulation.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers.models.normalization import RMSNorm
from diffusers.models.transformers.transformer_ltx2 import LTX2Attention, LTX2VideoTransformerBlock
from torch import Tensor, nn

from ltx2_job.models.positions import Rope, rotate


@dataclass(frozen=True)
class Modality:
    """What the blocks need to know about one modality; R = 1 row without clean tokens, else 2 (noisy, clean).

    text: caption embeddings at the modality's width [B, T, D].
    clean: None or bool [B, N, 1], True on clean tokens.
    rows: modulation from the own timestep [B, R, 6 or 9, D]: shift, scale, gate of self-attention, then of the
        feed-forward part, then (2.3) of the text attention's queries.
    cross_rows: the same for the attention between modalities [B, R, 4, D]: scale, shift as audio-to-video's side, then
        as video-to-audio's.
    gate: of what is received from the other modality [B, 1, 1, D].
    prompt: None (2.0) or shift and scale of the text [B, 1, 2, D].
    rope, time_rope: rotations for self-attention and for the attention between modalities.
    """

    text: Tensor
    clean: Tensor | None
    rows: Tensor
    cross_rows: Tensor
    gate: Tensor
    prompt: Tensor | None
    rope: Rope
    time_rope: Rope


@dataclass(frozen=True)
class Context:
    """What one block needs beside its tokens.

    a2v_scale: None or [B, 1, 1], a factor on what video receives from audio (0 for a sample without sound).
    isolate: both attentions between the modalities are left out.
    skip_self_attention: self-attention passes its values through (spatio-temporal guidance).
    """

    video: Modality
    audio: Modality
    a2v_scale: Tensor | None = None
    isolate: bool = False
    skip_self_attention: bool = False


class Attention(LTX2Attention):
    """diffusers' attention modules with a forward of our own; see `forward`."""

    def forward(  # type: ignore[override]  # diffusers' signature has no tables per modality
        self,
        x: Tensor,
        source: Tensor | None = None,
        rope: Rope | None = None,
        source_rope: Rope | None = None,
        values_only: bool = False,
    ) -> Tensor:
        """Attention of tokens x [B, N, D] to `source` [B, M, D'] (None: to themselves) -> [B, N, D].

        Queries and keys are normalised over the whole width, then rotated if tables are given (`source_rope`: the
        source's, default `rope`). Where the model has gates (2.3), each head's output is multiplied by 2 x sigmoid of
        its gate. `values_only`: each token takes its own value instead of attending.
        """
        source = x if source is None else source
        heads = (self.heads, -1)
        value = self.to_v(source).unflatten(2, heads)
        if values_only:
            out = value
        else:
            query = self.norm_q(self.to_q(x)).unflatten(2, heads)
            key = self.norm_k(self.to_k(source)).unflatten(2, heads)
            if rope is not None:
                query, key = rotate(query, rope), rotate(key, source_rope or rope)
            out = F.scaled_dot_product_attention(
                query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
            ).transpose(1, 2)
        if self.to_gate_logits is not None:
            out = out * (2.0 * torch.sigmoid(self.to_gate_logits(x)))[..., None]
        return self.to_out[0](out.flatten(2))


class Block(LTX2VideoTransformerBlock):
    """diffusers' block modules with the official forward: self-attention, text, the other modality, feed-forward."""

    def forward(  # type: ignore[override]  # one context instead of two dozen arguments
        self, video: Tensor, audio: Tensor, context: Context
    ) -> tuple[Tensor, Tensor]:
        """Video tokens [B, N, D] and audio tokens [B, L, A] after this block."""
        v, a, skip = context.video, context.audio, context.skip_self_attention
        video_rows = rows_of(self.scale_shift_table, v.rows, video.dtype)
        audio_rows = rows_of(self.audio_scale_shift_table, a.rows, audio.dtype)

        video = _attend_to_itself(video, v, video_rows, self.norm1, self.attn1, skip)
        audio = _attend_to_itself(audio, a, audio_rows, self.audio_norm1, self.audio_attn1, skip)

        video_prompt = audio_prompt = None
        if v.prompt is not None and a.prompt is not None:
            video_prompt = rows_of(self.prompt_scale_shift_table, v.prompt, video.dtype)
            audio_prompt = rows_of(self.audio_prompt_scale_shift_table, a.prompt, audio.dtype)
        video = _attend_to_text(video, v, video_rows, video_prompt, self.norm2, self.attn2)
        audio = _attend_to_text(audio, a, audio_rows, audio_prompt, self.audio_norm2, self.audio_attn2)

        if not context.isolate:
            video, audio = self._exchange(video, audio, context)

        video = _feed_forward(video, v, video_rows, self.norm3, self.ff)
        audio = _feed_forward(audio, a, audio_rows, self.audio_norm3, self.audio_ff)
        return video, audio

    def _exchange(self, video: Tensor, audio: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """Attention between the modalities; both directions read the tokens as they were before it."""
        v, a = context.video, context.audio
        video_table = self.video_a2v_cross_attn_scale_shift_table
        audio_table = self.audio_a2v_cross_attn_scale_shift_table
        v_scale, v_shift, v_source_scale, v_source_shift = rows_of(video_table[:4], v.cross_rows, video.dtype)
        a_source_scale, a_source_shift, a_scale, a_shift = rows_of(audio_table[:4], a.cross_rows, audio.dtype)
        (a2v_gate,) = rows_of(video_table[4:], v.gate, video.dtype)
        (v2a_gate,) = rows_of(audio_table[4:], a.gate, audio.dtype)
        if context.a2v_scale is not None:
            a2v_gate = a2v_gate * context.a2v_scale.to(a2v_gate.dtype)

        video_in, audio_in = normalise(video, self.audio_to_video_norm), normalise(audio, self.video_to_audio_norm)
        to_video = self.audio_to_video_attn(
            modulate(video_in, v_scale, v_shift, v.clean),
            modulate(audio_in, a_source_scale, a_source_shift, a.clean),
            v.time_rope,
            a.time_rope,
        )
        to_audio = self.video_to_audio_attn(
            modulate(audio_in, a_scale, a_shift, a.clean),
            modulate(video_in, v_source_scale, v_source_shift, v.clean),
            a.time_rope,
            v.time_rope,
        )
        return torch.addcmul(video, to_video, a2v_gate), torch.addcmul(audio, to_audio, v2a_gate)


def adopt(block: nn.Module) -> None:
    """Give a block that diffusers built, and its attentions, our forward. Modules and parameters stay the same ones."""
    block.__class__ = Block
    for module in block.children():
        if isinstance(module, LTX2Attention):
            module.__class__ = Attention


def rows_of(table: Tensor, rows: Tensor, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """The block's own table [k, D] added to the model's rows [B, R, k, D]: k tensors [B, R, D] in the tokens' dtype."""
    return (table + rows).to(dtype).unbind(2)


def modulate(x: Tensor, scale: Tensor, shift: Tensor, clean: Tensor | None) -> Tensor:
    """x (1 + scale) + shift with each token's own row. x [B, N, D]; scale, shift [B, R, D]; clean as in Modality."""
    factor = 1 + scale
    if clean is None:
        return torch.addcmul(shift, x, factor)
    noisy = torch.addcmul(shift[:, :1], x, factor[:, :1])
    return torch.where(clean, torch.addcmul(shift[:, 1:], x, factor[:, 1:]), noisy)


def add_gated(x: Tensor, change: Tensor, gate: Tensor, clean: Tensor | None) -> Tensor:
    """x + gate change with each token's own row. x, change [B, N, D]; gate [B, R, D]; clean as in Modality."""
    if clean is None:
        return torch.addcmul(x, change, gate)
    return torch.where(clean, torch.addcmul(x, change, gate[:, 1:]), torch.addcmul(x, change, gate[:, :1]))


def normalise(x: Tensor, norm: RMSNorm) -> Tensor:
    """RMS norm with the module's settings, as one fused operation instead of the module's six."""
    return F.rms_norm(x, norm.dim, norm.weight, norm.eps)


def _attend_to_itself(
    x: Tensor, modality: Modality, rows: tuple[Tensor, ...], norm: RMSNorm, attention: nn.Module, skip: bool
) -> Tensor:
    shift, scale, gate = rows[:3]
    tokens = modulate(normalise(x, norm), scale, shift, modality.clean)
    return add_gated(x, attention(tokens, rope=modality.rope, values_only=skip), gate, modality.clean)


def _attend_to_text(
    x: Tensor,
    modality: Modality,
    rows: tuple[Tensor, ...],
    prompt: tuple[Tensor, ...] | None,
    norm: RMSNorm,
    attention: nn.Module,
) -> Tensor:
    tokens = normalise(x, norm)
    if prompt is None:
        return x + attention(tokens, modality.text)
    shift, scale, gate = rows[6:]
    text_shift, text_scale = prompt
    tokens = modulate(tokens, scale, shift, modality.clean)
    text = modulate(modality.text, text_scale, text_shift, None)
    return add_gated(x, attention(tokens, text), gate, modality.clean)


def _feed_forward(x: Tensor, modality: Modality, rows: tuple[Tensor, ...], norm: RMSNorm, feed: nn.Module) -> Tensor:
    shift, scale, gate = rows[3:6]
    return add_gated(x, feed(modulate(normalise(x, norm), scale, shift, modality.clean)), gate, modality.clean)
