"""LTX-2's audio-video transformer in numpy (double precision), sample by sample and with every token's own timestep.

Written from the description of the official trainer's forward: own timestep per token for scale, shift and gate of all
parts; the other modality's noise level for the gate of what is received from it; the own noise level, one per sample,
for the scale and shift of the text. Weights are read by diffusers' names.
"""

from dataclasses import dataclass

import numpy as np

from reference import rope


@dataclass
class Side:
    """One modality of one sample: latent [N, C], noise level, clean [N] (bool), text [T, W]."""

    latent: np.ndarray
    sigma: float
    clean: np.ndarray
    text: np.ndarray


def velocity(weights, config, video: Side, audio: Side, grid, fps, *, a2v_scale=1.0, skip=(), isolate=False):
    """Velocity of both modalities of one sample: [N, C] and [L, C']."""
    w = {name: np.asarray(value, np.float64) for name, value in weights.items()}
    heads, eps = config["num_attention_heads"], config["norm_eps"]
    v_at, a_at = rope.video_spans(grid, fps), rope.audio_spans(len(audio.latent))
    v_width, a_width = w["proj_in.weight"].shape[0], w["audio_proj_in.weight"].shape[0]
    turns = {
        "video": rope.angles(v_at, (20, 2048, 2048), v_width),
        "audio": rope.angles(a_at, (20,), a_width),
        "video_time": rope.angles(v_at[:, :1], (20,), a_width),
        "audio_time": rope.angles(a_at, (20,), a_width),
    }
    v, a = linear(w, "proj_in", video.latent), linear(w, "audio_proj_in", audio.latent)
    v_text, a_text = caption(w, "caption_projection", video.text), caption(w, "audio_caption_projection", audio.text)
    v_time, a_time = (np.where(side.clean, 0.0, side.sigma * 1000) for side in (video, audio))
    v_rows, v_embedded = adaln(w, "time_embed", v_time)
    a_rows, a_embedded = adaln(w, "audio_time_embed", a_time)
    v_cross, _ = adaln(w, "av_cross_attn_video_scale_shift", v_time)
    a_cross, _ = adaln(w, "av_cross_attn_audio_scale_shift", a_time)
    gate_scale = config.get("cross_attn_timestep_scale_multiplier", 1000)
    v_gate, _ = adaln(w, "av_cross_attn_video_a2v_gate", np.array([audio.sigma * gate_scale]))
    a_gate, _ = adaln(w, "av_cross_attn_audio_v2a_gate", np.array([video.sigma * gate_scale]))
    v_prompt = a_prompt = None
    if "prompt_adaln.linear.weight" in w:
        v_prompt, _ = adaln(w, "prompt_adaln", np.array([video.sigma * 1000]))
        a_prompt, _ = adaln(w, "audio_prompt_adaln", np.array([audio.sigma * 1000]))

    for index in range(config["num_layers"]):
        p = f"transformer_blocks.{index}."

        def attend(name, x, source, q_turn=None, k_turn=None, values_only=False, p=p):
            return attention(w, p + name, x, source, heads, eps, q_turn, k_turn, values_only)

        vm = w[p + "scale_shift_table"] + v_rows  # [N, 6 or 9, D]
        am = w[p + "audio_scale_shift_table"] + a_rows

        x = affine(rms(v, eps), vm[:, 1], vm[:, 0])
        v = v + vm[:, 2] * attend("attn1", x, x, turns["video"], turns["video"], index in skip)
        x = affine(rms(a, eps), am[:, 1], am[:, 0])
        a = a + am[:, 2] * attend("audio_attn1", x, x, turns["audio"], turns["audio"], index in skip)

        if v_prompt is None:
            v = v + attend("attn2", rms(v, eps), v_text)
            a = a + attend("audio_attn2", rms(a, eps), a_text)
        else:
            vp, ap = w[p + "prompt_scale_shift_table"] + v_prompt, w[p + "audio_prompt_scale_shift_table"] + a_prompt
            x, text = affine(rms(v, eps), vm[:, 7], vm[:, 6]), affine(v_text, vp[:, 1], vp[:, 0])
            v = v + vm[:, 8] * attend("attn2", x, text)
            x, text = affine(rms(a, eps), am[:, 7], am[:, 6]), affine(a_text, ap[:, 1], ap[:, 0])
            a = a + am[:, 8] * attend("audio_attn2", x, text)

        if not isolate:
            vt, at = w[p + "video_a2v_cross_attn_scale_shift_table"], w[p + "audio_a2v_cross_attn_scale_shift_table"]
            vc, ac = vt[:4] + v_cross, at[:4] + a_cross
            nv, na = rms(v, eps), rms(a, eps)
            from_audio = attend(
                "audio_to_video_attn",
                affine(nv, vc[:, 0], vc[:, 1]),
                affine(na, ac[:, 0], ac[:, 1]),
                turns["video_time"],
                turns["audio_time"],
            )
            from_video = attend(
                "video_to_audio_attn",
                affine(na, ac[:, 2], ac[:, 3]),
                affine(nv, vc[:, 2], vc[:, 3]),
                turns["audio_time"],
                turns["video_time"],
            )
            v = v + a2v_scale * (vt[4] + v_gate[:, 0]) * from_audio
            a = a + (at[4] + a_gate[:, 0]) * from_video

        v = v + vm[:, 5] * feed_forward(w, p + "ff", affine(rms(v, eps), vm[:, 4], vm[:, 3]))
        a = a + am[:, 5] * feed_forward(w, p + "audio_ff", affine(rms(a, eps), am[:, 4], am[:, 3]))

    v_table, a_table = w["scale_shift_table"] + v_embedded[:, None], w["audio_scale_shift_table"] + a_embedded[:, None]
    v = affine(layer_norm(v), v_table[:, 1], v_table[:, 0])
    a = affine(layer_norm(a), a_table[:, 1], a_table[:, 0])
    return linear(w, "proj_out", v), linear(w, "audio_proj_out", a)


def linear(w, name, x):
    return x @ w[name + ".weight"].T + w[name + ".bias"]


def affine(x, scale, shift):
    return x * (1 + scale) + shift


def rms(x, eps, weight=1.0):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * weight


def layer_norm(x):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)


def silu(x):
    return x / (1 + np.exp(-x))


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def caption(w, name, text):
    """2.0 projects captions inside the transformer; later models before it."""
    if name + ".linear_1.weight" not in w:
        return text
    return linear(w, name + ".linear_2", gelu(linear(w, name + ".linear_1", text)))


def feed_forward(w, name, x):
    return linear(w, name + ".net.2", gelu(linear(w, name + ".net.0.proj", x)))


def sinusoid(timesteps):
    """[M] -> [M, 256]: cosines, then sines, of 128 frequencies 10000^(-i/128)."""
    phases = timesteps[:, None] * 10000.0 ** (-np.arange(128) / 128)
    return np.concatenate([np.cos(phases), np.sin(phases)], axis=1)


def adaln(w, name, timesteps):
    """Timesteps [M] -> modulation [M, k, D] and the embedding [M, D]."""
    embedded = silu(linear(w, name + ".emb.timestep_embedder.linear_1", sinusoid(timesteps)))
    embedded = linear(w, name + ".emb.timestep_embedder.linear_2", embedded)
    return linear(w, name + ".linear", silu(embedded)).reshape(len(timesteps), -1, embedded.shape[1]), embedded


def attention(w, name, x, source, heads, eps, q_turn, k_turn, values_only):
    value = linear(w, name + ".to_v", source)
    size = value.shape[1] // heads
    if values_only:
        out = value
    else:
        query = rms(linear(w, name + ".to_q", x), eps, w[name + ".norm_q.weight"])
        key = rms(linear(w, name + ".to_k", source), eps, w[name + ".norm_k.weight"])
        if q_turn is not None:
            query, key = rope.turn(query, q_turn, heads), rope.turn(key, k_turn, heads)
        out = np.empty_like(query)
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            scores = query[:, part] @ key[:, part].T / np.sqrt(size)
            scores = np.exp(scores - scores.max(-1, keepdims=True))
            out[:, part] = scores / scores.sum(-1, keepdims=True) @ value[:, part]
    if name + ".to_gate_logits.weight" in w:
        gates = 2 / (1 + np.exp(-linear(w, name + ".to_gate_logits", x)))  # [N, heads]
        out = out * np.repeat(gates, size, axis=1)
    return linear(w, name + ".to_out.0", out)
