"""The header's config of the published LTX-2.0 and LTX-2.3 files, written out from their published description."""

import copy
import json

_TRANSFORMER = {
    "_class_name": "AVTransformer3DModel", "num_layers": 48, "num_attention_heads": 32, "attention_head_dim": 128,
    "cross_attention_dim": 4096, "in_channels": 128, "out_channels": 128, "audio_num_attention_heads": 32,
    "audio_attention_head_dim": 64, "audio_cross_attention_dim": 2048, "audio_out_channels": 128,
    "caption_channels": 3840, "norm_eps": 1e-06, "norm_num_groups": 32, "positional_embedding_theta": 10000.0,
    "positional_embedding_max_pos": [20, 2048, 2048], "audio_positional_embedding_max_pos": [20],
    "timestep_scale_multiplier": 1000, "av_ca_timestep_scale_multiplier": 1000.0, "rope_type": "split",
    "frequencies_precision": "float64", "dropout": 0.0, "attention_bias": True, "attention_type": "default",
    "activation_fn": "gelu-approximate", "num_embeds_ada_norm": 1000, "use_linear_projection": False,
    "only_cross_attention": False, "cross_attention_norm": True, "double_self_attention": False,
    "upcast_attention": False, "standardization_norm": "rms_norm", "norm_elementwise_affine": False,
    "qk_norm": "rms_norm", "positional_embedding_type": "rope", "use_audio_video_cross_attention": True,
    "share_ff": False, "av_cross_ada_norm": True, "use_middle_indices_grid": True, "num_vector_embeds": None,
    "causal_temporal_positioning": True, "use_embeddings_connector": True, "connector_num_attention_heads": 30,
    "connector_attention_head_dim": 128, "connector_num_layers": 2, "connector_num_learnable_registers": 128,
    "connector_positional_embedding_max_pos": [4096], "connector_norm_output": True,
}  # fmt: skip

_TRANSFORMER_23 = _TRANSFORMER | {
    "audio_in_channels": 128, "apply_gated_attention": True, "cross_attention_adaln": True,
    "caption_proj_before_connector": True, "caption_projection_first_linear": False,
    "caption_projection_second_linear": False, "caption_proj_input_norm": False, "connector_num_attention_heads": 32,
    "connector_num_layers": 8, "audio_connector_num_attention_heads": 32, "audio_connector_attention_head_dim": 64,
    "connector_apply_gated_attention": True, "connector_learnable_registers_std": 1,
    "text_encoder_norm_type": "per_token_rms",
}  # fmt: skip

_VAE = {
    "_class_name": "CausalVideoAutoencoder", "dims": 3, "in_channels": 3, "out_channels": 3, "latent_channels": 128,
    "patch_size": 4, "norm_layer": "pixel_norm", "latent_log_var": "uniform", "causal_decoder": False,
    "timestep_conditioning": False,
}  # fmt: skip
_ENCODER = [["res_x", {"num_layers": 4}], ["compress_space_res", {"multiplier": 2}], ["res_x", {"num_layers": 6}],
            ["compress_time_res", {"multiplier": 2}], ["res_x", {"num_layers": 6}],
            ["compress_all_res", {"multiplier": 2}], ["res_x", {"num_layers": 2}],
            ["compress_all_res", {"multiplier": 2}], ["res_x", {"num_layers": 2}]]  # fmt: skip
_DECODER_20 = [["res_x", {"num_layers": 5}]] + [
    ["compress_all", {"residual": True, "multiplier": 2}], ["res_x", {"num_layers": 5}]] * 3  # fmt: skip
_DECODER_23 = [["res_x", {"num_layers": 4}], ["compress_space", {"multiplier": 2}], ["res_x", {"num_layers": 6}],
               ["compress_time", {"multiplier": 2}], ["res_x", {"num_layers": 4}], ["compress_all", {"multiplier": 1}],
               ["res_x", {"num_layers": 2}], ["compress_all", {"multiplier": 2}],
               ["res_x", {"num_layers": 2}]]  # fmt: skip

_AUDIO_VAE = {
    "model": {"params": {"sampling_rate": 16000, "ddconfig": {
        "double_z": True, "mel_bins": 64, "z_channels": 8, "resolution": 256, "in_channels": 2, "out_ch": 2, "ch": 128,
        "ch_mult": [1, 2, 4], "num_res_blocks": 2, "attn_resolutions": [], "dropout": 0.0,
        "mid_block_add_attention": False, "norm_type": "pixel", "causality_axis": "height"}}},
    "preprocessing": {"stft": {"filter_length": 1024, "hop_length": 160, "win_length": 1024, "causal": True},
                      "mel": {"n_mel_channels": 64, "mel_fmin": 0, "mel_fmax": 8000}},
}  # fmt: skip

_BRANCHES = {"resblock_kernel_sizes": [3, 7, 11], "resblock_dilation_sizes": [[1, 3, 5], [1, 3, 5], [1, 3, 5]]}
_VOCODER_20 = _BRANCHES | {
    "stereo": True, "resblock": "1", "upsample_rates": [6, 5, 2, 2, 2], "upsample_kernel_sizes": [16, 15, 8, 4, 4],
    "upsample_initial_channel": 1024,
}  # fmt: skip
_STAGE_23 = _BRANCHES | {"stereo": True, "resblock": "AMP1", "activation": "snakebeta", "use_tanh_at_final": False,
                         "use_bias_at_final": False}  # fmt: skip
_VOCODER_23 = {
    "vocoder": _STAGE_23 | {"upsample_initial_channel": 1536, "upsample_rates": [5, 2, 2, 2, 2, 2],
                            "upsample_kernel_sizes": [11, 4, 4, 4, 4, 4]},
    "bwe": _STAGE_23 | {"upsample_initial_channel": 512, "upsample_rates": [6, 5, 2, 2, 2],
                        "upsample_kernel_sizes": [12, 11, 4, 4, 4], "input_sampling_rate": 16000,
                        "output_sampling_rate": 48000, "hop_length": 80, "n_fft": 512, "num_mels": 64, "win_size": 512},
}  # fmt: skip

_SCHEDULER = {"_class_name": "RectifiedFlowScheduler", "num_train_timesteps": 1000, "shifting": None,
              "base_resolution": None, "sampler": "LinearQuadratic"}  # fmt: skip


def config(version):
    """The `config` of a published file as a dictionary of its own."""
    if version == "2.0":
        vae = _VAE | {"encoder_blocks": _ENCODER, "decoder_blocks": _DECODER_20}
        sections = {"transformer": _TRANSFORMER, "vae": vae, "audio_vae": _AUDIO_VAE, "vocoder": _VOCODER_20}
    else:
        encoder = copy.deepcopy(_ENCODER)
        encoder[4][1]["num_layers"], encoder[7][1]["multiplier"] = 4, 1
        vae = _VAE | {"encoder_blocks": encoder, "decoder_blocks": _DECODER_23, "spatial_padding_mode": "zeros"}
        sections = {"transformer": _TRANSFORMER_23, "vae": vae, "audio_vae": _AUDIO_VAE, "vocoder": _VOCODER_23}
    return copy.deepcopy(sections | {"scheduler": _SCHEDULER})


def metadata(version, sections=None):
    """Header metadata with that config, or a changed one."""
    stamp = {"model_version": "2.3.0"} if version == "2.3" else {}
    return {"config": json.dumps(sections or config(version)), "license": "x", **stamp}
