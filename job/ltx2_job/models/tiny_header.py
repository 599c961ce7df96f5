"""The metadata of a tiny model's file: the published files' config, every key of it, with this architecture's sizes."""

import json
from typing import Any

from ltx2_job.models.layout import DECODER_STAGES, ENCODER_STAGES, Architecture, Generator


def metadata(arch: Architecture) -> dict[str, str]:
    """Header metadata as the official files have it: `config` as JSON, and from 2.3 on `model_version`."""
    config = {
        "transformer": _transformer(arch),
        "vae": _vae(arch),
        "audio_vae": _audio_vae(arch),
        "vocoder": _vocoder(arch),
        "scheduler": {"_class_name": "RectifiedFlowScheduler", "num_train_timesteps": 1000, "shifting": None,
                      "base_resolution": None, "sampler": "LinearQuadratic"},
    }  # fmt: skip
    stamp = {"model_version": "2.3.0"} if arch.version == "2.3" else {}
    return {"config": json.dumps(config), **stamp, "license": "Random weights, made for testing."}


def _transformer(arch: Architecture) -> dict[str, Any]:
    sizes, text = arch.transformer, arch.text
    section: dict[str, Any] = {
        "_class_name": "AVTransformer3DModel",
        "num_layers": sizes.blocks,
        "num_attention_heads": sizes.heads,
        "attention_head_dim": sizes.head_dim,
        "cross_attention_dim": sizes.width,
        "in_channels": sizes.channels,
        "out_channels": sizes.channels,
        "audio_num_attention_heads": sizes.heads,
        "audio_attention_head_dim": sizes.audio_head_dim,
        "audio_cross_attention_dim": sizes.audio_width,
        "audio_out_channels": sizes.audio_channels,
        "caption_channels": text.hidden,
        "dropout": 0.0,
        "norm_eps": 1e-06,
        "norm_num_groups": 32,
        "attention_bias": True,
        "attention_type": "default",
        "activation_fn": "gelu-approximate",
        "num_embeds_ada_norm": 1000,
        "use_linear_projection": False,
        "only_cross_attention": False,
        "cross_attention_norm": True,
        "double_self_attention": False,
        "upcast_attention": False,
        "standardization_norm": "rms_norm",
        "norm_elementwise_affine": False,
        "num_vector_embeds": None,
        "qk_norm": "rms_norm",
        "positional_embedding_type": "rope",
        "positional_embedding_theta": 10000.0,
        "positional_embedding_max_pos": [20, 2048, 2048],
        "audio_positional_embedding_max_pos": [20],
        "timestep_scale_multiplier": 1000,
        "av_ca_timestep_scale_multiplier": 1000.0,
        "rope_type": "split",
        "frequencies_precision": "float64",
        "use_audio_video_cross_attention": True,
        "share_ff": False,
        "av_cross_ada_norm": True,
        "use_middle_indices_grid": True,
        "causal_temporal_positioning": True,
        "use_embeddings_connector": True,
        "connector_norm_output": True,
        "connector_num_attention_heads": text.video.heads,
        "connector_attention_head_dim": text.video.head_dim,
        "connector_num_layers": text.video.layers,
        "connector_num_learnable_registers": 128,
        "connector_positional_embedding_max_pos": [4096],
    }
    if arch.version == "2.0":
        return section | {"_diffusers_version": "0.34.0"}
    return section | {
        "audio_in_channels": sizes.audio_channels,
        "apply_gated_attention": True,
        "cross_attention_adaln": True,
        "caption_proj_before_connector": True,
        "caption_projection_first_linear": False,
        "caption_projection_second_linear": False,
        "caption_proj_input_norm": False,
        "connector_apply_gated_attention": True,
        "audio_connector_num_attention_heads": text.audio.heads,
        "audio_connector_attention_head_dim": text.audio.head_dim,
        "connector_learnable_registers_std": 1,
        "text_encoder_norm_type": "per_token_rms",
    }


def _vae(arch: Architecture) -> dict[str, Any]:
    vae = arch.vae
    encoder: list[Any] = [["res_x", {"num_layers": vae.encoder_layers[0]}]]
    for stage, kind in enumerate(ENCODER_STAGES):
        factor = vae.encoder_widths[stage + 1] // vae.encoder_widths[stage]
        encoder.append([f"compress_{kind}_res", {"multiplier": factor}])
        encoder.append(["res_x", {"num_layers": vae.encoder_layers[stage + 1]}])
    decoder: list[Any] = [["res_x", {"num_layers": vae.decoder_layers[0]}]]
    for stage, (kind, shrink) in enumerate(DECODER_STAGES[arch.version]):
        residual = {"residual": True} if arch.version == "2.0" else {}
        decoder.append([f"compress_{kind}", {"multiplier": shrink, **residual}])
        decoder.append(["res_x", {"num_layers": vae.decoder_layers[stage + 1]}])
    section = {
        "_class_name": "CausalVideoAutoencoder",
        "dims": 3,
        "in_channels": vae.colours,
        "out_channels": vae.colours,
        "latent_channels": vae.latent_channels,
        "encoder_blocks": encoder,
        "decoder_blocks": decoder[::-1],  # written from the pixels inwards
        "decoder_base_channels": vae.decoder_widths[-1],
        "scaling_factor": 1.0,
        "norm_layer": "pixel_norm",
        "patch_size": vae.patch,
        "latent_log_var": "uniform",
        "use_quant_conv": False,
        "normalize_latent_channels": False,
        "causal_decoder": False,
        "timestep_conditioning": False,
    }
    return section if arch.version == "2.0" else section | {"spatial_padding_mode": "zeros"}


def _audio_vae(arch: Architecture) -> dict[str, Any]:
    vae = arch.audio_vae
    sizes = {
        "double_z": True,
        "mel_bins": vae.mel_bins,
        "z_channels": vae.latent_channels,
        "resolution": 256,
        "downsample_time": False,
        "in_channels": vae.channels,
        "out_ch": vae.channels,
        "ch": vae.base,
        "ch_mult": list(vae.multipliers),
        "num_res_blocks": vae.blocks,
        "attn_resolutions": [],
        "dropout": 0.0,
        "mid_block_add_attention": False,
        "norm_type": "pixel",
        "causality_axis": "height",
    }
    return {
        "model": {"params": {"ddconfig": sizes, "sampling_rate": 16000}},
        "preprocessing": {
            "stft": {"filter_length": 1024, "hop_length": 160, "win_length": 1024, "causal": True},
            "mel": {"n_mel_channels": vae.mel_bins, "mel_fmin": 0, "mel_fmax": 8000},
        },
    }


def _vocoder(arch: Architecture) -> dict[str, Any]:
    vocoder = arch.vocoder
    if vocoder.bwe is None:
        return _generator(vocoder.main) | {"resblock": "1", "stereo": True}
    new = {"resblock": "AMP1", "activation": "snakebeta", "stereo": True, "use_tanh_at_final": False,
           "use_bias_at_final": False}  # fmt: skip
    return {
        "vocoder": _generator(vocoder.main) | new,
        "bwe": _generator(vocoder.bwe) | new | {
            "input_sampling_rate": vocoder.input_rate,
            "output_sampling_rate": vocoder.output_rate,
            "hop_length": vocoder.hop,
            "n_fft": vocoder.n_fft,
            "win_size": vocoder.n_fft,
            "num_mels": vocoder.mel_bins,
        },
    }  # fmt: skip


def _generator(generator: Generator) -> dict[str, Any]:
    return {
        "upsample_rates": list(generator.rates),
        "upsample_kernel_sizes": list(generator.kernels),
        "upsample_initial_channel": generator.hidden,
        "resblock_kernel_sizes": list(generator.block_kernels),
        "resblock_dilation_sizes": [list(steps) for steps in generator.dilations],
    }
