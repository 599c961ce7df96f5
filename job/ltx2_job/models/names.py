"""From the official tensor names to the parts and parameter names of diffusers' modules.

Prefixes are matched at the start only (`audio_vae.` contains `vae.`), then whole dot segments are renamed: replacing
substrings would turn the `adaln_single` inside `av_ca_video_scale_shift_adaln_single` wrong. No tensor is transposed,
split or fused. Torch-free.
"""

from typing import Final, Literal, NamedTuple

from ltx2_job.models.layout import PREFIX, UNUSED

Part = Literal["transformer", "connectors", "vae", "audio_vae", "vocoder"]
PARTS: Final[tuple[Part, ...]] = ("transformer", "connectors", "vae", "audio_vae", "vocoder")

_TRANSFORMER: Final = {
    "patchify_proj": "proj_in",
    "audio_patchify_proj": "audio_proj_in",
    "adaln_single": "time_embed",
    "audio_adaln_single": "audio_time_embed",
    "prompt_adaln_single": "prompt_adaln",
    "audio_prompt_adaln_single": "audio_prompt_adaln",
    "av_ca_video_scale_shift_adaln_single": "av_cross_attn_video_scale_shift",
    "av_ca_audio_scale_shift_adaln_single": "av_cross_attn_audio_scale_shift",
    "av_ca_a2v_gate_adaln_single": "av_cross_attn_video_a2v_gate",
    "av_ca_v2a_gate_adaln_single": "av_cross_attn_audio_v2a_gate",
    "scale_shift_table_a2v_ca_video": "video_a2v_cross_attn_scale_shift_table",
    "scale_shift_table_a2v_ca_audio": "audio_a2v_cross_attn_scale_shift_table",
    "q_norm": "norm_q",
    "k_norm": "norm_k",
}
_CONNECTORS: Final = {
    "video_embeddings_connector": "video_connector",
    "audio_embeddings_connector": "audio_connector",
    "transformer_1d_blocks": "transformer_blocks",
    "q_norm": "norm_q",
    "k_norm": "norm_k",
}
_PROJECTIONS: Final = {
    "aggregate_embed": "text_proj_in",
    "video_aggregate_embed": "video_text_proj_in",
    "audio_aggregate_embed": "audio_text_proj_in",
}
_STATISTICS: Final = {"mean-of-means": "latents_mean", "std-of-means": "latents_std"}
_VOCODER: Final = {
    "conv_pre": "conv_in",
    "ups": "upsamplers",
    "resblocks": "resnets",
    "act_post": "act_out",
    "conv_post": "conv_out",
}


class Place(NamedTuple):
    """Where a tensor of the file goes: the part, and the name in that part's state dict."""

    part: Part
    name: str


def place(official: str) -> Place | None:
    """The place of a tensor by its official name; None for a name with a foreign prefix.

    Only renames: whether such a parameter exists is for the caller to check.
    """
    segments = official.split(".")
    if official.startswith(PREFIX):
        inner = segments[2:]
        if inner[0] in ("video_embeddings_connector", "audio_embeddings_connector"):
            return Place("connectors", _renamed(inner, _CONNECTORS))
        return Place("transformer", _renamed(inner, _TRANSFORMER))
    match segments[0]:
        case "text_embedding_projection":
            return Place("connectors", _renamed(segments[1:], _PROJECTIONS))
        case "vae":
            return Place("vae", _video_vae(segments[1:]))
        case "audio_vae":
            return Place("audio_vae", _statistics(segments[1:]))
        case "vocoder":
            return Place("vocoder", _vocoder(segments[1:]))
    return None


def is_unused(official: str) -> bool:
    """True for the three statistics of 2.0 files that no reader uses."""
    return official in UNUSED


def _renamed(segments: list[str], table: dict[str, str]) -> str:
    return ".".join(table.get(segment, segment) for segment in segments)


def _statistics(segments: list[str]) -> str:
    if segments[0] == "per_channel_statistics" and len(segments) == 2 and segments[1] in _STATISTICS:
        return _STATISTICS[segments[1]]
    return ".".join(segments)


def _video_vae(segments: list[str]) -> str:
    """Even stages hold residual blocks, odd ones resample; diffusers puts both of a level into one block."""
    if segments[0] == "per_channel_statistics":
        return _statistics(segments)
    renamed = ["resnets" if segment == "res_blocks" else segment for segment in segments]
    if len(renamed) > 2 and renamed[2].isdecimal():
        stage, rest = int(renamed[2]), renamed[3:]
        if renamed[:2] == ["encoder", "down_blocks"]:
            level = ["mid_block"] if stage == 8 else ["down_blocks", str(stage // 2)]
            return ".".join(["encoder", *level, *(["downsamplers", "0"] if stage % 2 else []), *rest])
        if renamed[:2] == ["decoder", "up_blocks"]:
            if stage == 0:
                return ".".join(["decoder", "mid_block", *rest])
            level = ["up_blocks", str((stage - 1) // 2)]
            return ".".join(["decoder", *level, *(["upsamplers", "0"] if stage % 2 else []), *rest])
    return ".".join(renamed)


def _vocoder(segments: list[str]) -> str:
    # The low-pass filter of a downsampling lies one module deeper in the official code.
    kept = [s for i, s in enumerate(segments) if not (s == "lowpass" and i and segments[i - 1] == "downsample")]
    return _renamed(kept, _VOCODER)
