"""The header's config: checked against what the tensors say, and turned into the arguments of diffusers' classes.

Sizes come from the tensors, flags (constants that leave no trace in shapes) from the header with the official code's
defaults. Any key that contradicts the tensors is an error. The `scheduler` section is ignored: no official code reads
it. Torch-free.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from ltx2_job.errors import Problem
from ltx2_job.models.header import Header
from ltx2_job.models.layout import DECODER_STAGES, ENCODER_STAGES, Architecture, Generator

# Keys with which the official audio-video model accepts exactly one value.
_EXACT: Final[dict[str, Any]] = {
    "dropout": 0.0,
    "attention_bias": True,
    "activation_fn": "gelu-approximate",
    "num_embeds_ada_norm": 1000,
    "use_linear_projection": False,
    "only_cross_attention": False,
    "cross_attention_norm": True,
    "double_self_attention": False,
    "upcast_attention": False,
    "standardization_norm": "rms_norm",
    "norm_elementwise_affine": False,
    "qk_norm": "rms_norm",
    "positional_embedding_type": "rope",
    "use_audio_video_cross_attention": True,
    "share_ff": False,
    "av_cross_ada_norm": True,
    "use_middle_indices_grid": True,
    "num_vector_embeds": None,
}

_RESAMPLER: Final = {"space": "spatial", "time": "temporal", "all": "spatiotemporal"}

# The official first stage of 2.3's vocoder ends in clamp(-1, 1), the second in nothing; diffusers clamps neither.
FIRST_STAGE_END: Final = "clamp"

Said = Iterator[tuple[str, Any, Any, Any]]  # dotted key, value in the header, value of the tensors, default if missing

_OPTIONAL: Final = object()  # a key that may be missing whatever the tensors say


def disagreements(header: Header, arch: Architecture) -> list[Problem]:
    """Every key of the header's config that contradicts the tensors or the one value that LTX-2 knows."""
    problems = []
    for key, said, seen, default in _statements(header, arch):
        value = default if said is None else said
        if value is not _OPTIONAL and value != seen:
            absent = " (its default; the key is missing)" if said is None else ""
            message = f"the header's config says {key} = {value}{absent}, the tensors say {seen}"
            problems.append(Problem("model", message))
    section = header.section("transformer")
    for key, wanted in _EXACT.items():
        if key in section and section[key] != wanted:
            problems.append(
                Problem("model", f"the header's config says transformer.{key} = {section[key]}, LTX-2 wants {wanted}")
            )
    return problems


def _statements(header: Header, arch: Architecture) -> Said:
    yield from _transformer_statements(header.section("transformer"), arch)
    yield from _vae_statements(header.section("vae"), arch)
    yield from _audio_statements(header.section("audio_vae"), arch)
    yield from _vocoder_statements(header.section("vocoder"), arch)


def _transformer_statements(section: Mapping[str, Any], arch: Architecture) -> Said:
    sizes, text, gated = arch.transformer, arch.text, arch.gated

    def of(key: str, seen: Any, default: Any = _OPTIONAL) -> tuple[str, Any, Any, Any]:
        return f"transformer.{key}", section.get(key), seen, default

    yield of("num_layers", sizes.blocks, 48)
    yield of("num_attention_heads", sizes.heads)
    yield of("audio_num_attention_heads", sizes.heads)
    yield of("attention_head_dim", sizes.head_dim, 128)
    yield of("audio_attention_head_dim", sizes.audio_head_dim, 64)
    yield of("cross_attention_dim", sizes.width, 4096)
    yield of("audio_cross_attention_dim", sizes.audio_width, 2048)
    for key in ("in_channels", "out_channels"):
        yield of(key, sizes.channels, 128)
        yield of(f"audio_{key}", sizes.audio_channels, 128)
    yield of("caption_channels", text.hidden)
    for key in ("apply_gated_attention", "cross_attention_adaln", "connector_apply_gated_attention",
                "caption_proj_before_connector"):  # fmt: skip
        yield of(key, gated, False)
    for key in ("caption_projection_first_linear", "caption_projection_second_linear", "caption_proj_input_norm"):
        yield of(key, False)
    for key in ("use_prompt_adaln_single", "ff_bias", "audio_ff_bias", "connector_ff_bias"):
        yield of(key, True, True)
    yield of("use_keyframes_abs_pos_embedding", False, False)
    yield of("connector_num_attention_heads", text.video.heads)
    yield of("connector_attention_head_dim", text.video.head_dim, 128)
    yield of("connector_num_layers", text.video.layers, 2)
    yield of("audio_connector_num_attention_heads", text.audio.heads, text.video.heads)
    yield of("audio_connector_attention_head_dim", text.audio.head_dim, text.video.head_dim)
    yield of("audio_connector_num_layers", text.audio.layers, text.video.layers)
    yield of("connector_num_learnable_registers", 128)
    # Another rotation or another range of frequencies would be another model with the same shapes.
    yield of("rope_type", "split", "split")


def _vae_statements(section: Mapping[str, Any], arch: Architecture) -> Said:
    vae = arch.vae

    def of(key: str, seen: Any, default: Any = _OPTIONAL) -> tuple[str, Any, Any, Any]:
        return f"vae.{key}", section.get(key), seen, default

    yield of("_class_name", "CausalVideoAutoencoder")
    yield of("dims", 3)
    yield of("in_channels", vae.colours)
    yield of("out_channels", vae.colours)
    yield of("latent_channels", vae.latent_channels, 128)
    yield of("patch_size", vae.patch, 4)
    yield of("norm_layer", "pixel_norm")
    yield of("latent_log_var", "uniform")
    yield of("causal_decoder", False, False)
    yield of("timestep_conditioning", False)
    yield of("decoder_base_channels", vae.decoder_widths[-1], 128)
    for key, seen in (("encoder_blocks", _encoder_blocks(arch)), ("decoder_blocks", _decoder_blocks(arch))):
        said = section.get(key)
        yield f"vae.{key}", None if said is None else _read_blocks(said, key), seen, _OPTIONAL


def _read_blocks(said: Any, key: str) -> Any:
    """Block lists in one spelling: (name, number of layers) or (name, multiplier, residual)."""
    read: list[Any] = []
    for entry in said if isinstance(said, list) else [said]:
        if not (isinstance(entry, list | tuple) and len(entry) == 2 and isinstance(entry[0], str)):
            return said
        name, params = entry
        params = params if isinstance(params, dict) else {"num_layers": params}
        if name.startswith("res_x"):
            read.append((name, params.get("num_layers", 1)))
        else:
            multiplier = params.get("multiplier", 2 if key == "encoder_blocks" else 1)
            read.append((name, multiplier, bool(params.get("residual", name.endswith("_res")))))
    return read


def _encoder_blocks(arch: Architecture) -> list[Any]:
    """Pixels inwards: residual blocks and, between them, resamplings that multiply the width."""
    widths, layers = arch.vae.encoder_widths, arch.vae.encoder_layers
    blocks: list[Any] = [("res_x", layers[0])]
    for stage, kind in enumerate(ENCODER_STAGES):
        blocks.append((f"compress_{kind}_res", widths[stage + 1] // widths[stage], True))
        blocks.append(("res_x", layers[stage + 1]))
    return blocks


def _decoder_blocks(arch: Architecture) -> list[Any]:
    """Pixels inwards, as the file writes it; the module list runs the other way."""
    blocks: list[Any] = [("res_x", arch.vae.decoder_layers[0])]
    for stage, (kind, shrink) in enumerate(DECODER_STAGES[arch.version]):
        blocks.append((f"compress_{kind}", shrink, arch.version == "2.0"))
        blocks.append(("res_x", arch.vae.decoder_layers[stage + 1]))
    return blocks[::-1]


def _audio_statements(section: Mapping[str, Any], arch: Architecture) -> Said:
    vae = arch.audio_vae
    params = (section.get("model") or {}).get("params") or {}
    sizes = params.get("ddconfig") or {}
    seen = {
        "double_z": True, "mel_bins": vae.mel_bins, "z_channels": vae.latent_channels, "in_channels": vae.channels,
        "out_ch": vae.channels, "ch": vae.base, "ch_mult": list(vae.multipliers), "num_res_blocks": vae.blocks,
        "attn_resolutions": [], "mid_block_add_attention": False, "norm_type": "pixel", "causality_axis": "height",
    }  # fmt: skip
    for key, value in seen.items():
        yield f"audio_vae.model.params.ddconfig.{key}", sizes.get(key), value, _OPTIONAL
    yield "audio_vae.model.params.sampling_rate", params.get("sampling_rate"), 16000, 16000
    stft = (section.get("preprocessing") or {}).get("stft") or {}
    for key, value in (("filter_length", 1024), ("hop_length", 160), ("win_length", 1024), ("causal", True)):
        yield f"audio_vae.preprocessing.stft.{key}", stft.get(key), value, value


def _vocoder_statements(section: Mapping[str, Any], arch: Architecture) -> Said:
    vocoder = arch.vocoder
    if vocoder.bwe is None:
        yield from _generator_statements("vocoder", section, vocoder.main)
        yield "vocoder.resblock", section.get("resblock"), "1", "1"
        return
    inner, bwe = section.get("vocoder") or {}, section.get("bwe") or {}
    for name, part, generator in (("vocoder.vocoder", inner, vocoder.main), ("vocoder.bwe", bwe, vocoder.bwe)):
        yield from _generator_statements(name, part, generator)
        yield f"{name}.resblock", part.get("resblock"), "AMP1", "AMP1"
        yield f"{name}.activation", part.get("activation"), "snakebeta", "snakebeta"
        yield f"{name}.use_tanh_at_final", part.get("use_tanh_at_final"), False, _OPTIONAL
        yield f"{name}.use_bias_at_final", part.get("use_bias_at_final"), False, _OPTIONAL
    yield "vocoder.bwe.n_fft", bwe.get("n_fft"), vocoder.n_fft, _OPTIONAL
    yield "vocoder.bwe.num_mels", bwe.get("num_mels"), vocoder.mel_bins, _OPTIONAL


def _generator_statements(name: str, section: Mapping[str, Any], generator: Generator) -> Said:
    seen = {
        "upsample_initial_channel": generator.hidden,
        "upsample_kernel_sizes": list(generator.kernels),
        "resblock_kernel_sizes": list(generator.block_kernels),
        "stereo": generator.channels == 2,
    }
    for key, value in seen.items():
        yield f"{name}.{key}", section.get(key), value, _OPTIONAL


def transformer_arguments(header: Header, arch: Architecture) -> dict[str, Any]:
    """Arguments of diffusers' LTX2VideoTransformer3DModel."""
    section, sizes = header.section("transformer"), arch.transformer
    time, height, width = section.get("positional_embedding_max_pos", [20, 2048, 2048])
    return {
        "in_channels": sizes.channels,
        "out_channels": sizes.channels,
        "num_attention_heads": sizes.heads,
        "attention_head_dim": sizes.head_dim,
        "cross_attention_dim": sizes.width,
        "pos_embed_max_pos": time,
        "base_height": height,
        "base_width": width,
        "gated_attn": arch.gated,
        "cross_attn_mod": arch.gated,
        "audio_in_channels": sizes.audio_channels,
        "audio_out_channels": sizes.audio_channels,
        "audio_num_attention_heads": sizes.heads,
        "audio_attention_head_dim": sizes.audio_head_dim,
        "audio_cross_attention_dim": sizes.audio_width,
        "audio_pos_embed_max_pos": section.get("audio_positional_embedding_max_pos", [20])[0],
        "audio_gated_attn": arch.gated,
        "audio_cross_attn_mod": arch.gated,
        "num_layers": sizes.blocks,
        "norm_eps": section.get("norm_eps", 1e-6),
        "caption_channels": arch.text.hidden,
        "rope_theta": section.get("positional_embedding_theta", 10000.0),
        "rope_double_precision": section.get("frequencies_precision") == "float64",
        "timestep_scale_multiplier": section.get("timestep_scale_multiplier", 1000),
        "cross_attn_timestep_scale_multiplier": section.get("av_ca_timestep_scale_multiplier", 1),
        "rope_type": "split",
        "use_prompt_embeddings": not arch.gated,
        "perturbed_attn": arch.gated,
    }


def connector_arguments(header: Header, arch: Architecture) -> dict[str, Any]:
    """Arguments of diffusers' LTX2TextConnectors."""
    section, text = header.section("transformer"), arch.text
    return {
        "caption_channels": text.hidden,
        "text_proj_in_factor": text.states,
        "video_connector_num_attention_heads": text.video.heads,
        "video_connector_attention_head_dim": text.video.head_dim,
        "video_connector_num_layers": text.video.layers,
        "video_gated_attn": arch.gated,
        "audio_connector_num_attention_heads": text.audio.heads,
        "audio_connector_attention_head_dim": text.audio.head_dim,
        "audio_connector_num_layers": text.audio.layers,
        "audio_gated_attn": arch.gated,
        # The official default is 1: positions would then run far beyond a period. The published files say 4096.
        "connector_rope_base_seq_len": section.get("connector_positional_embedding_max_pos", [1])[0],
        "rope_theta": section.get("positional_embedding_theta", 10000.0),
        "rope_double_precision": section.get("frequencies_precision") == "float64",
        "rope_type": "split",
        "per_modality_projections": arch.gated,
        "video_hidden_dim": text.video.width,
        "audio_hidden_dim": text.audio.width,
        "proj_bias": arch.gated,
    }


def vae_arguments(header: Header, arch: Architecture) -> dict[str, Any]:
    """Arguments of diffusers' AutoencoderKLLTX2Video."""
    vae, section, stages = arch.vae, header.section("vae"), DECODER_STAGES[arch.version]
    both = section.get("spatial_padding_mode")
    factors = [shrink for _, shrink in stages]
    return {
        "latent_channels": vae.latent_channels,
        "block_out_channels": vae.encoder_widths[1:],
        "layers_per_block": vae.encoder_layers,
        # diffusers counts from the pixels inwards and gives each level its width before the resampling.
        "decoder_block_out_channels": tuple(w * f for w, f in zip(vae.decoder_widths[1:], factors, strict=True))[::-1],
        "decoder_layers_per_block": vae.decoder_layers[::-1],
        "decoder_spatio_temporal_scaling": (True,) * len(stages),
        "decoder_inject_noise": (False,) * (len(stages) + 1),
        "downsample_type": tuple(_RESAMPLER[kind] for kind in ENCODER_STAGES),
        "upsample_type": tuple(_RESAMPLER[kind] for kind, _ in stages),  # the one list that is not reversed
        "upsample_residual": (arch.version == "2.0",) * len(stages),
        "upsample_factor": tuple(factors[::-1]),
        "timestep_conditioning": False,
        "patch_size": vae.patch,
        "encoder_causal": True,
        "decoder_causal": False,
        "encoder_spatial_padding_mode": both or section.get("encoder_spatial_padding_mode") or "zeros",
        "decoder_spatial_padding_mode": both or "reflect",
        "spatial_compression_ratio": 32,
        "temporal_compression_ratio": 8,
    }


def audio_vae_arguments(header: Header, arch: Architecture) -> dict[str, Any]:
    """Arguments of diffusers' AutoencoderKLLTX2Audio."""
    vae = arch.audio_vae
    return {
        "base_channels": vae.base,
        "output_channels": vae.channels,
        "ch_mult": vae.multipliers,
        "num_res_blocks": vae.blocks,
        "in_channels": vae.channels,
        "latent_channels": vae.latent_channels,
        "norm_type": "pixel",
        "causality_axis": "height",
        "mid_block_add_attention": False,
        "mel_bins": vae.mel_bins,
        "double_z": True,
    }


def vocoder_arguments(header: Header, arch: Architecture) -> dict[str, Any]:
    """Arguments of diffusers' LTX2Vocoder (2.0) or LTX2VocoderWithBWE (2.3)."""
    vocoder = arch.vocoder
    main = _generator_arguments(vocoder.main)
    if vocoder.bwe is None:
        return main | {"final_act_fn": "tanh", "final_bias": True, "output_sampling_rate": vocoder.output_rate}
    return main | {f"bwe_{key}": value for key, value in _generator_arguments(vocoder.bwe).items()} | {
        "final_act_fn": FIRST_STAGE_END,
        "bwe_final_act_fn": None,
        "filter_length": vocoder.n_fft,
        "hop_length": vocoder.hop,
        "window_length": vocoder.n_fft,
        "num_mel_channels": vocoder.mel_bins,
        "input_sampling_rate": vocoder.input_rate,
        "output_sampling_rate": vocoder.output_rate,
    }  # fmt: skip


def _generator_arguments(generator: Generator) -> dict[str, Any]:
    return {
        "in_channels": generator.inputs,
        "hidden_channels": generator.hidden,
        "out_channels": generator.channels,
        "upsample_kernel_sizes": list(generator.kernels),
        "upsample_factors": list(generator.rates),
        "resnet_kernel_sizes": list(generator.block_kernels),
        "resnet_dilations": [list(steps) for steps in generator.dilations],
    }
